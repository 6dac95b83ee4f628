"""Logging in: the SSH authentication protocol (RFC 4252, RFC 4256) over paramiko's transport.

paramiko's own signs with every key unasked, can't combine two methods, and reports one error for
all threads.
"""

from __future__ import annotations

import queue
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from paramiko.message import Message
from paramiko.ssh_exception import SSHException

from socketpool.tunnel.certificates import CERTIFIED
from socketpool.tunnel.failures import HostUnreachable, LoginRefused
from socketpool.tunnel.identities import CannotSign
from socketpool.tunnel.sshdata import Reader, boolean, key_type, string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.tunnel.hostsettings import HostSettings
    from socketpool.tunnel.identities import AskUser, Identities, Identity
    from socketpool.tunnel.transport import SshTransport

SERVICE_REQUEST, SERVICE_ACCEPT = 5, 6
REQUEST, FAILURE, SUCCESS, BANNER = 50, 51, 52, 53
PK_OK = INFO_REQUEST = 60
INFO_RESPONSE = 61
PUBLIC_KEY, KEYBOARD = "publickey", "keyboard-interactive"
ANSWER_SECONDS = 60.0
"""So long a host may take to answer: it may ask a directory, or wait after a refusal."""
MAX_PROMPTS = 32
MAX_ROUNDS = 64
MAX_BANNER = 4096
RSA_ALGORITHMS = ("rsa-sha2-512", "rsa-sha2-256")


class _Ended(Exception):
    """The connection ended while an answer was waited for."""


class UserAuth:
    """Logs in over one connection; it stands where paramiko has its own handler."""

    def __init__(
        self, transport: SshTransport, host: HostSettings, note: Callable[[str], None]
    ) -> None:
        self.banner = ""
        self._transport = transport
        self._host = host
        self._note = note
        self._answers: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._authenticated = False
        self._handler_table: dict[int, Callable[[Message], None]] = {
            kind: self._keep(kind) for kind in (SERVICE_ACCEPT, FAILURE, SUCCESS, BANNER, PK_OK)
        }
        transport.auth_handler = self  # type: ignore[assignment]  # has all that is used of it

    # what paramiko asks of it

    def is_authenticated(self) -> bool:
        """Whether the host has let us in."""
        return self._authenticated

    def get_username(self) -> str:
        """Who logs in."""
        return self._host.user

    def abort(self) -> None:
        """The connection has ended."""
        self._answers.put(None)

    def _keep(self, kind: int) -> Callable[[Message], None]:
        def keep(message: Message) -> None:
            if kind == SUCCESS:
                self._authenticated = True
                self._transport._auth_trigger()  # type: ignore[attr-defined]
            self._answers.put((kind, message.asbytes()))

        return keep

    # the protocol

    def log_in(self, identities: Identities, ask: AskUser) -> None:
        """Authenticate; raises LoginRefused, which tells what was tried, or HostUnreachable."""
        tried: list[str] = []
        try:
            self._log_in(identities, ask, tried)
        except (_Ended, SSHException, EOFError, OSError) as error:
            reason = self._transport.disconnect_reason or self.banner
            if tried or reason:
                raise _refused(
                    self._host, tried, f"and then closed the connection{_said(reason)}"
                ) from None
            raise HostUnreachable(
                f"{self._host.name} closed the connection while logging in ({error})"
            ) from None
        except ValueError as error:
            raise HostUnreachable(
                f"{self._host.name} does not follow the SSH protocol: {error}"
            ) from None

    def _log_in(self, identities: Identities, ask: AskUser, tried: list[str]) -> None:
        self._send(bytes([SERVICE_REQUEST]) + string("ssh-userauth"))
        self._await(SERVICE_ACCEPT)
        methods, _ = self._request("none")
        accepted: list[bytes] = []
        exhausted: set[str] = set()
        while methods is not None:
            usable = [
                each for each in self._host.methods if each in methods and each not in exhausted
            ]
            if not usable:
                raise _refused_methods(self._host, tried, methods, accepted)
            method = usable[0]
            if method == PUBLIC_KEY:
                methods, partial = self._show_keys(identities, accepted, tried, methods)
            else:
                methods, partial = self._answer_questions(ask, tried)
            if partial:
                exhausted.clear()
            else:
                exhausted.add(method)

    def _show_keys(
        self, identities: Identities, accepted: list[bytes], tried: list[str], methods: list[str]
    ) -> tuple[list[str] | None, bool]:
        """Show one after the other; returns the methods that can go on, None when logged in."""
        with ExitStack() as stack:
            for identity in identities.offers(stack, tried):
                if identity.plain in accepted:
                    continue
                algorithm = self._algorithm(identity)
                if algorithm is None:
                    tried.append(f"{identity.name} (no signature algorithm in common)")
                    continue
                tried.append(identity.name)
                if not self._would_take(identity, algorithm):
                    continue
                try:
                    signature = self._sign(identity, algorithm)
                except CannotSign as error:
                    tried[-1] += f" ({error})"
                    continue
                left, partial = self._request(
                    PUBLIC_KEY, *_key_fields(identity, algorithm, signature)
                )
                if left is None or partial:
                    identities.remember(identity)
                    accepted.append(identity.plain)
                    tried[-1] += " (accepted)" if partial else ""
                    return left, partial
        return methods, False

    def _would_take(self, identity: Identity, algorithm: str) -> bool:
        self._send(
            _request_head(self._host.user, PUBLIC_KEY)
            + b"".join(_key_fields(identity, algorithm, None))
        )
        kind, _ = self._await(PK_OK, FAILURE)
        return kind == PK_OK

    def _sign(self, identity: Identity, algorithm: str) -> bytes:
        session: bytes = self._transport.session_id  # type: ignore[assignment]
        head = _request_head(self._host.user, PUBLIC_KEY)
        fields = boolean(value=True) + string(algorithm) + string(identity.blob)
        return identity.sign(string(session) + head + fields, algorithm.removesuffix(CERTIFIED))

    def _algorithm(self, identity: Identity) -> str | None:
        """By what to sign; None when the host, or the configuration, allows nothing."""
        kind = key_type(identity.blob)
        candidates: tuple[str, ...] = (kind,)
        if kind in {"ssh-rsa", "ssh-rsa" + CERTIFIED}:
            end = CERTIFIED if kind.endswith(CERTIFIED) else ""
            candidates = tuple(each + end for each in RSA_ALGORITHMS)
            offered = self._transport.server_extensions.get("server-sig-algs", b"")
            if offered:
                theirs = offered.decode("ascii", "replace").split(",")
                candidates = tuple(
                    each for each in candidates if each.removesuffix(CERTIFIED) in theirs
                )
        allowed = self._host.public_key_algorithms
        return next((each for each in candidates if allowed is None or each in allowed), None)

    def _answer_questions(self, ask: AskUser, tried: list[str]) -> tuple[list[str] | None, bool]:
        """keyboard-interactive: what the host asks is asked of the user."""
        for attempt in range(self._host.prompts):
            if attempt == 0:
                tried.append(KEYBOARD)
            self._send(_request_head(self._host.user, KEYBOARD) + string("") + string(""))
            answered = False
            for _ in range(MAX_ROUNDS):
                kind, content = self._await(INFO_REQUEST, FAILURE, SUCCESS)
                if kind == SUCCESS:
                    return None, False
                if kind == FAILURE:
                    methods, partial = _failure(content)
                    break
                answers = self._ask_all(Reader(content), ask)
                if answers is None:
                    tried[-1] += " (nobody can be asked)"
                    answers = []
                else:
                    answered = answered or bool(answers)
                self._send(
                    bytes([INFO_RESPONSE])
                    + len(answers).to_bytes(4, "big")
                    + b"".join(string(each) for each in answers)
                )
            else:
                raise ValueError("it asks without end")
            if partial or not answered:
                return methods, partial
        return methods, False

    def _ask_all(self, request: Reader, ask: AskUser) -> list[str] | None:
        name, instruction = request.text(), request.text()
        request.string()  # a language
        count = request.uint32()
        if count > MAX_PROMPTS:
            raise ValueError(f"it asks {count} things at once")
        for text in (name, instruction):
            if text.strip():
                self._note(text.strip()[:MAX_BANNER])
        answers = []
        for _ in range(count):
            prompt, echo = request.text(), request.boolean()
            answer = None if self._host.batch else ask(prompt[:MAX_BANNER], echo=echo)
            if answer is None:
                return None
            answers.append(answer)
        return answers

    def _request(self, method: str, *fields: bytes) -> tuple[list[str] | None, bool]:
        """The methods that can go on, None when logged in; and whether a part is done."""
        self._send(_request_head(self._host.user, method) + b"".join(fields))
        kind, content = self._await(FAILURE, SUCCESS)
        return (None, False) if kind == SUCCESS else _failure(content)

    def _send(self, data: bytes) -> None:
        self._transport._send_user_message(Message(data))  # type: ignore[attr-defined]

    def _await(self, *kinds: int) -> tuple[int, bytes]:
        while True:
            try:
                answer = self._answers.get(timeout=ANSWER_SECONDS)
            except queue.Empty:
                raise _Ended(f"it did not answer within {ANSWER_SECONDS:g} s") from None
            if answer is None:
                raise _Ended("it said nothing")
            kind, content = answer
            if kind == BANNER:
                with suppress(ValueError):
                    self.banner = Reader(content).text().strip()[:MAX_BANNER]
                    self._note(self.banner)
            elif kind in kinds:
                return answer
            else:
                raise ValueError(f"message {kind} out of turn")


def _request_head(user: str, method: str) -> bytes:
    return bytes([REQUEST]) + string(user) + string("ssh-connection") + string(method)


def _key_fields(identity: Identity, algorithm: str, signature: bytes | None) -> Iterator[bytes]:
    yield boolean(value=signature is not None)
    yield string(algorithm)
    yield string(identity.blob)
    if signature is not None:
        yield string(signature)


def _failure(content: bytes) -> tuple[list[str], bool]:
    reader = Reader(content)
    return reader.names(), reader.boolean()


def _said(text: str) -> str:
    return f", saying: {text}" if text else ""


def _refused(host: HostSettings, tried: list[str], further: str = "") -> LoginRefused:
    keys = "tried: " + "; ".join(tried) if tried else "there was no key to try"
    further = f", {further}" if further else ""
    return LoginRefused(
        f"{host.name} takes none of the keys{further} ({keys})",
        hint="put your public key into its authorized_keys, load the key into your agent, or "
        "name it: IdentityFile in ssh_config",
    )


def _refused_methods(
    host: HostSettings, tried: list[str], methods: list[str], accepted: list[bytes]
) -> LoginRefused:
    if accepted:
        return LoginRefused(
            f"{host.name} takes the key and wants more: {', '.join(methods)} "
            f"(tried: {'; '.join(tried)})",
            hint="what it asks is asked at the terminal; passwords are not used",
        )
    if PUBLIC_KEY not in methods:
        return LoginRefused(
            f"{host.name} takes no keys, only: {', '.join(methods)}",
            hint="its sshd_config needs PubkeyAuthentication yes for this account",
        )
    return _refused(host, tried)
