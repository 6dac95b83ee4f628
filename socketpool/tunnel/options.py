"""The options of ssh_config(5), by what becomes of them here.  Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from socketpool.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

Options = dict[str, list[str]]
"""The values of each option by its name in lower case, in the order in which they count."""

_OBEYED = """
addressfamily batchmode bindaddress bindinterface casignaturealgorithms certificatefile
checkhostip ciphers connecttimeout globalknownhostsfile hashknownhosts host hostkeyalgorithms
hostkeyalias hostname identitiesonly identityagent identityfile kbdinteractiveauthentication
kexalgorithms knownhostscommand macs numberofpasswordprompts port preferredauthentications
proxycommand proxyjump pubkeyacceptedalgorithms pubkeyauthentication requiredrsasize
revokedhostkeys serveralivecountmax serveraliveinterval stricthostkeychecking user
userknownhostsfile
"""
OBEYED = frozenset(_OBEYED.split())

_IRRELEVANT = """
addkeystoagent canonicaldomains canonicalizefallbacklocal canonicalizehostname
canonicalizemaxdots canonicalizepermittedcnames channeltimeout clearallforwardings compression
connectionattempts controlmaster controlpath controlpersist dynamicforward
enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash
forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports
gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms
gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns
hostbasedacceptedalgorithms hostbasedauthentication ignoreunknown include ipqos localcommand
localforward loglevel logverbose nohostauthenticationforlocalhost obscurekeystroketiming
passwordauthentication permitlocalcommand permitremoteopen rekeylimit remotecommand
remoteforward requesttty securitykeyprovider sendenv sessiontype setenv stdinnull
streamlocalbindmask streamlocalbindunlink syslogfacility tag tcpkeepalive tunnel tunneldevice
updatehostkeys versionaddendum visualhostkey warnweakcrypto xauthlocation
"""
IRRELEVANT = frozenset(_IRRELEVANT.split())
"""They mean nothing to a tunnel, or leaving them out makes it stricter."""

HARMLESS = frozenset({"pkcs11provider", "verifyhostkeydns"})
"""Not obeyed, and nothing is less protected for it: the user is told."""


def not_obeyed(options: Options, standard: Options) -> tuple[list[str], list[str]]:
    """Which options somebody set that aren't obeyed: those that may protect, and the harmless.

    ``standard`` is what holds when nothing is configured.  An option that isn't known here counts
    as one that may protect.
    """
    protecting, harmless = [], []
    for name, values in sorted(options.items()):
        if name in OBEYED or name in IRRELEVANT or values == standard.get(name):
            continue
        if name in HARMLESS:
            harmless.append(name)
        elif values != ["no"]:
            protecting.append(name)
    if options.get("pubkeyauthentication", [""])[0].lower() == "host-bound":
        protecting.append("pubkeyauthentication host-bound")
    return protecting, harmless


def algorithms(options: Options, name: str) -> tuple[str, ...] | None:
    """The list of algorithms that an option gives, None if none; raises ConfigError."""
    value = options.get(name, [""])[0]
    if value.startswith(("+", "-", "^")):  # ssh itself would have evaluated it
        raise ConfigError(
            f"ssh_config: {name} {value}: this changes a list that only the ssh program knows",
            hint="install the ssh program, or write the whole list",
        )
    return tuple(value.split(",")) if value else None


def one(options: Options, name: str, default: str = "") -> str:
    """The first value of an option; ``none`` stands for the default."""
    value = options.get(name, [default])[0]
    return default if value.lower() == "none" else value


def is_yes(options: Options, name: str, default: str = "no") -> bool:
    """Whether an option is switched on."""
    return one(options, name, default).lower() in {"yes", "true"}


def seconds(value: str) -> float:
    """A time as sshd_config(5) writes it under TIME FORMATS; raises ValueError."""
    if re.fullmatch(r"(\d+[smhdw]?)+", value, re.IGNORECASE) is None:
        raise ValueError(f"{value!r} is not a time")
    parts = re.findall(r"(\d+)([smhdw]?)", value.lower())
    return float(sum(int(number) * _SECONDS[unit] for number, unit in parts))


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def split_paths(values: Iterable[str]) -> list[str]:
    """The paths of a value in which ``ssh -G`` has left out the quotes.

    A word that can't begin a path goes on the one before: ``/home/me/my hosts /etc/hosts`` are two.
    """
    paths: list[str] = []
    for word in " ".join(values).split(" "):
        begins = word.startswith(("/", "~", "%", "${")) or word.lower() == "none"
        if paths and not begins:
            paths[-1] += " " + word
        elif word:
            paths.append(word)
    return [path for path in paths if path.lower() != "none"]
