"""Files in which tools keep credentials stay at home, copies of them too; ordinary files leave."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from socketpool.archive.copies import originals
from socketpool.archive.policy import Policy, check_pattern, default_policy, find_policy
from socketpool.archive.rules import RuleSet

if TYPE_CHECKING:
    from pathlib import Path

DENY = default_policy().deny.patterns
ANYTHING = Policy(("*",), DENY)
"""Of somebody who lets out everything that isn't denied."""

CREDENTIALS = """
.env .env.local .env.production .env.js .ENV app/.env~ .env.bak .env.txt backup/.env.txt
config/.env.js env.js env.json cypress.env.json http-client.private.env.json .envrc .flaskenv
.dev.vars .netrc _netrc netrc.txt .NETRC .git-credentials .npmrc .npmrc.bak .yarnrc.yml .pypirc
.pgpass .composer/auth.json auth.json auth.json.bak "auth (1).json" "auth - Copy.json"
"Copy of auth.json" auth.json~ auth.json.save auth.json.orig auth.json.2024-01-31 auth-old.json
auth_backup.json .m2/settings.xml m2/settings.xml.old nuget.config NuGet.Config gradle.properties
local.properties key.properties .cargo/credentials.toml .gem/credentials sftp-config.json
sftp-config-alt.json SFTP-Config.JSON .vscode/sftp.json .ftpconfig .ftppass .remote-sync.json
sitemanager.xml SiteManager.xml.bak FileZilla/recentservers.xml WinSCP.ini winscp.ini.bak
.idea/webServers.xml WebServers.xml dataSources.xml dataSources.local.xml deployment.xml
connections.xml site.PublishSettings Properties/launchSettings.json appsettings.json
appsettings.Development.json appsettings-prod.json local.settings.json Web.config web.config.txt
web.Release.config connectionStrings.json secrets.json machine.config .aws/credentials.json
aws/credentials .azure/msal_token_cache.json accessTokens.json azureProfile.json .kube/config.json
kubeconfig kubeconfig.json prod-kubeconfig .docker/config.json .dockercfg dockerconfig.json
gcloud-key.json application_default_credentials.json service-account.json serviceAccountKey.json
my-project-1234-0a1b2c3d4e5f.json client_secret_123.apps.googleusercontent.com.json
firebase-admin.json google-services.json GoogleService-Info.plist .s3cfg .boto rclone.conf
terraform.tfstate terraform.tfstate.backup terraform.tfstate.txt prod.tfvars terraform.tfvars.json
vault.yml .vault-token .vault_pass.txt group_vars/vault.yml acme.json .netlify/state.json
.vercel/project.json .heroku/x .fly/config.yml gha-creds-0123456789abcdef.json
.config/gh/hosts.json credentials.xml .sentryclirc .ngrok2/ngrok.yml .ngrok .my.cnf .mylogin.cnf
.mongorc.js dump.sql dump.sql.txt db_backup.json backup.sqlite .bash_history .bash_history.txt
.mysql_history .psql_history .python_history .zsh_history .node_repl_history .htpasswd
htpasswd.txt .htaccess tomcat-users.xml META-INF/context.xml server.xml standalone.xml
standalone-full.xml hibernate.cfg.xml persistence.xml application.properties application-prod.yml
wp-config.php wp-config.php.bak wp-config.php~ wp-config.php.save wp-config.txt wp-config.old.txt
wp-config-backup.txt wp-config.php.txt configuration.php sites/default/settings.php
app/etc/env.php app/etc/local.xml app/etc/local.xml.bak shop/app/etc/local.xml parameters.yml
LocalSettings.php config.inc.php config.php.save .config.php.swp database.yml secrets.yml
master.key credentials.yml.enc database.json config/config.json config/production.json
config/local.js config/database.js config.local.js knexfile.js ormconfig.json ecosystem.config.js
newrelic.js elastic-apm-node.js appsignal.cjs web-ext-config.js drizzle.config.ts
truffle-config.js hardhat.config.js aws-exports.js awsconfig.js id_rsa id_rsa.txt id_rsa_prod
id_ed25519_sk deploy_key deploy_rsa authorized_keys known_hosts ssh/config.txt ssh-key.txt
server.pem server.p12 release.jks release.keystore vault.kdbx office.ovpn dist.mobileprovision
private-key.txt private_key.json privkey.txt cert.pem.txt server.key.txt keystore.properties
key.json keys.json id.json keyfile.json wallet.dat flow.json .near-credentials/a.json
slack-token.txt telegram_token.json discord-config.json .slack/x twilio.json sasl_passwd
cookies.txt cookies.json storageState.json playwright/.auth/user.json logins.json sessions.json
token.json tokens.json access_token.txt api-key.json apikey.txt passwords.js passwords.txt
passwd.txt pwd.txt credentials.js credentials.ts secrets.js secret.js my-credentials.json
kaggle.json .databrickscfg confCons.xml Groups.xml unattend.xml accounts.xml .wwebjs_auth/a.json
insomnia.json clouds.yaml debug.log error_log.txt .DS_Store Thumbs.db .git/config .svn/entries.txt
.ssh.bak/config.txt "#auth.json#" "~$auth.json" ".#auth.json" auth.json.r17 auth.json.rpmsave
"Kopie von auth.json"
"""

ORDINARY = """
index.html about/index.htm css/site.css js/app.js js/vendor/jquery-3.6.0.min.js lib/lodash.mjs
token.html tokens/colors.css tokenizer.js keyboard.js keys.html monkey.html keyframes.css
turkey.html password.js password-reset.html passwordless.html forgot-password.html secretary.html
environment.html environment.js env.html envelope.js credentials.html api-keys.html author.js
authors.html authentication.js auth.js auth.html oauth.html login.html logins.html login.js
cookies.html cookies.js cookie-policy.html js.cookie.js session.js sessions.html config.js
config.html settings.js settings.html database.html database-design.html dump.js history.html
history.js browser_history.html ssh-keys.html ssh_config.5.html known_hosts.html deploy.html
deploy.js deployment.html docker.html kubernetes.html terraform.html vault.html wp-config.html
wordpress.html firebase.js firebase-config.js firebase-messaging-sw.js slack.html telegram.html
discord.js stripe.js paypal.html twilio.html newrelic.html service-worker.js service-accounts.html
serviceworker.js server.html server.js standalone.html context.js context.html application.js
application.css private.html certs.html certificates.html copy.js copyright.html backup.html
old.html old-site.css new-page.html page-1.html page_2.html a.bak.html main-old.css
"Copy of index.html" "index (1).html" index.old.html style.min.css users.html accounts.html
groups.html drives.html key.html keystone.js store.js bootstrap.js package.html composer.html
gradle.html maven.html nuget.html history.css id.html local.css
"""


def words(text: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', text)]


def example(pattern: str) -> str:
    """A name that the pattern is about."""
    name = re.sub(r"\[(.)[^\]]*\]", r"\1", pattern.removeprefix("**/"))
    return name.replace("*", "x")


@pytest.mark.parametrize("name", words(CREDENTIALS))
def test_files_with_credentials_stay(name: str) -> None:
    assert not ANYTHING.decide(name.encode()).send
    assert not ANYTHING.decide(f"some/folder/{name}".encode()).send
    assert not ANYTHING.decide(name.upper().encode()).send


@pytest.mark.parametrize("name", words(ORDINARY))
def test_ordinary_pages_styles_and_scripts_leave(name: str) -> None:
    assert default_policy().decide(name.encode()).send
    assert default_policy().decide(f"site/{name}".encode()).send


@pytest.mark.parametrize("name", ["data.json", "sitemap.xml", "robots.txt", "README.md", "app.ts"])
def test_data_text_and_typescript_leave_only_when_asked_for(name: str, tmp_path: Path) -> None:
    assert not default_policy().decide(name.encode()).send
    (tmp_path / ".socketpool.yml").write_text("defaults: wide")
    assert find_policy(tmp_path / "site.zip").decide(name.encode()).send
    (tmp_path / ".socketpool.yml").write_text('include: ["*.*"]')
    assert find_policy(tmp_path / "site.zip").decide(name.encode()).send
    (tmp_path / ".socketpool.yml").write_text("defaults: all")
    assert not find_policy(tmp_path / "site.zip").decide(name.encode()).send


def test_the_wide_list_stays_denied_where_credentials_are(tmp_path: Path) -> None:
    (tmp_path / ".socketpool.yml").write_text("defaults: wide")
    wide = find_policy(tmp_path / "site.zip")
    assert [name for name in words(CREDENTIALS) if wide.decide(name.encode()).send] == []


def test_every_shipped_pattern_denies_its_name_and_the_copies_of_it() -> None:
    forms = ("{}", "{}.bak", "{}~", "{}.save", "{}.txt", "{}.old", "{}.orig", "folder/{}")
    names = [form.format(example(pattern)) for pattern in DENY for form in forms]
    names += [name.upper() for name in names]
    assert [name for name in names if ANYTHING.decide(name.encode()).send] == []


def test_every_shipped_name_is_meant_exactly() -> None:
    found = []
    for pattern in DENY:
        if "*" not in pattern and "[" not in pattern:
            rules, name = RuleSet((pattern,), copies=True), example(pattern).lower()
            near = (f"q{name}", f"{name}q", f"{name}.html")
            found += [each for each in near if rules.match(each) or rules.match_copy(each)]
    assert found == []


def test_the_shipped_patterns_mean_something() -> None:
    for pattern in (*DENY, *default_policy().include.patterns):
        check_pattern(pattern)


def test_a_copy_of_what_a_project_denies_stays_too(tmp_path: Path) -> None:
    (tmp_path / ".socketpool.yml").write_text('include: ["*"]\ndeny: ["prices.xls", "Drafts/"]')
    policy = find_policy(tmp_path / "site.zip")
    for name in ("prices.xls", "prices.xls.bak", "prices (2).xls", "a/Prices-old.xls", "drafts/a"):
        assert not policy.decide(name.encode()).send, name
    assert policy.decide(b"prices.html").send


@pytest.mark.parametrize("name", ["x" * 4000, "-1" * 800, "~" * 800, "(1)" * 500, ".bak" * 800])
def test_long_names_are_judged_in_short_time(name: str) -> None:
    assert len(list(originals(name))) < 100
