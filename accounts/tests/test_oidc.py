import time
from dataclasses import replace
from types import MappingProxyType

import jwt
import pytest
import time_machine
from django.contrib.auth.models import Group, User
from django.test import Client

from accounts import second_factor
from accounts.models import Identity
from accounts.oidc import provider as protocol
from accounts.oidc.provider_settings import ProviderSettings
from accounts.tests.conftest import PASSWORD
from accounts.tests.provider import CLIENT, OTHER_KEY, SECRET, OidcProvider, jwk
from accounts.tests.test_second_factor import enrolled
from audit.models import Change

EMAIL = {"email": "Ann@example.com", "email_verified": True}
CALLBACK = "http://127.0.0.1:8001/dashboards/oidc/callback"


@pytest.fixture
def provider(db):
    one = OidcProvider()
    yield one
    one.stop()


@pytest.fixture
def configure(provider, settings):
    """Configure the provider; the arguments replace settings. Without any, ann may sign in, and gets an account."""

    def configured(**changes):
        known = ProviderSettings(
            issuer=provider.issuer,
            client_id=CLIENT,
            client_secret=SECRET,
            name="ours",
            redirect_uri=CALLBACK,
            scopes=("openid", "email"),
            algorithms=("RS256",),
            groups_claim="groups",
            allowed_groups=frozenset({"gateway"}),
            allowed_emails=frozenset({"ann@example.com"}),
            superuser_groups=frozenset(),
            groups=MappingProxyType({}),
            creates_accounts=True,
            links_by_email=False,
        )
        settings.OIDC = replace(known, **changes)
        assert settings.OIDC.faults() == []

    configured()
    provider.claims = {"sub": "1234", **EMAIL}
    return configured


@pytest.fixture
def sign_in(client, provider, configure):
    """Return a function that signs in at the provider and comes back, as a browser does."""

    def signed(browser=client, following="/dashboards/"):
        begun = browser.get("/dashboards/oidc/begin", {"next": following})
        assert begun.status_code == 302, begun.content
        return browser.get(provider.authorize(begun["location"]).removeprefix("http://127.0.0.1:8001"))

    return signed


def is_in(browser):
    return browser.get("/dashboards/account").status_code == 200


def refused(answer, browser):
    return answer.status_code == 403 and not is_in(browser) and not Identity.objects.exists()


def test_an_operator_signs_in_and_gets_an_account_where_that_is_configured(client, provider, sign_in):
    assert sign_in()["location"] == "/dashboards/"
    account = User.objects.get()
    assert (account.username, account.email, account.is_staff, account.is_superuser) == (
        "ann@example.com", "ann@example.com", True, False
    )  # fmt: skip
    assert not account.has_usable_password()
    assert is_in(client)
    signed = Change.objects.get(action="signed-in")
    assert (signed.name, signed.note) == ("ann@example.com", "with OpenID Connect, from 127.0.0.1")
    made = Change.objects.filter(kind__in=("account", "identity"))
    assert {(row.actor, row.action, row.note) for row in made} == {("OpenID Connect", "created", "from 127.0.0.1")}
    again = Client()
    sign_in(again)
    assert is_in(again)
    assert User.objects.count() == Identity.objects.count() == 1


def test_without_the_setting_there_is_no_sign_in_at_a_provider(client, settings, db):
    settings.OIDC = None
    for page in ("begin", "callback"):
        assert client.get(f"/dashboards/oidc/{page}").status_code == 404
    assert b"oidc" not in client.get("/dashboards/login").content


def test_both_sign_in_pages_link_to_it(client, configure):
    for page in ("/dashboards/login", "/admin/login/"):
        assert b"Sign in with ours" in client.get(page).content


def test_no_account_is_made_unless_configured(client, configure, sign_in):
    configure(creates_accounts=False)
    assert refused(sign_in(), client)
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("claims", "is_allowed"),
    [
        (EMAIL, True),
        (EMAIL | {"email_verified": False}, False),
        (EMAIL | {"email_verified": "true"}, False),
        (EMAIL | {"email_verified": None}, False),
        (EMAIL | {"email": "ann@example.com.evil.example"}, False),
        (EMAIL | {"email": "bob@example.com"}, False),
        (EMAIL | {"email": "bob@ours.example"}, True),
        (EMAIL | {"email": "bob@not.ours.example"}, False),
        ({"groups": ["gateway"]}, True),
        ({"groups": "gateway"}, False),
        ({"groups": ["gateway-not"]}, False),
        ({"groups": [["gateway"], {"a": 1}]}, False),
        ({}, False),
    ],
)
def test_only_those_who_are_named_sign_in(client, provider, configure, sign_in, claims, is_allowed):
    configure(allowed_emails=frozenset({"ann@example.com", "@ours.example"}))
    provider.claims = {"sub": "1234", **claims}
    sign_in()
    assert is_in(client) == is_allowed
    assert User.objects.exists() == is_allowed


def test_an_existing_account_is_not_taken_over_by_its_email(client, provider, configure, sign_in):
    ann = User.objects.create_superuser("ann@example.com", "ann@example.com", PASSWORD)
    sign_in()
    assert Identity.objects.get().account.username == "ann@example.com-2"
    assert not Identity.objects.filter(account=ann).exists()


def test_an_account_is_linked_by_a_verified_email_where_that_is_configured(client, provider, configure, sign_in):
    ann = User.objects.create_user("ann", "ANN@example.com", PASSWORD)
    configure(links_by_email=True, creates_accounts=False)
    provider.claims = {"sub": "1234", **EMAIL, "email_verified": False, "groups": ["gateway"]}
    assert refused(sign_in(), client)
    provider.claims = {"sub": "1234", **EMAIL}
    sign_in()
    assert Identity.objects.get().account == ann
    somebody_else = Client()
    provider.claims = {"sub": "5678", **EMAIL}
    assert sign_in(somebody_else).status_code == 403
    assert not is_in(somebody_else)


def test_an_email_of_two_accounts_links_neither(client, provider, configure, sign_in):
    for name in ("ann", "ann2"):
        User.objects.create_user(name, "ann@example.com", PASSWORD)
    configure(links_by_email=True, creates_accounts=False)
    assert refused(sign_in(), client)


def test_later_sign_ins_are_matched_by_the_subject_alone(provider, configure, sign_in):
    sign_in(Client())
    provider.claims = {"sub": "1234", "email": "moved@example.com", "email_verified": True, "groups": ["gateway"]}
    browser = Client()
    sign_in(browser)
    assert is_in(browser)
    assert User.objects.count() == 1


def test_a_disabled_account_stays_out(client, provider, sign_in):
    sign_in(Client())
    User.objects.update(is_active=False)
    assert sign_in().status_code == 403
    assert not is_in(client)


def test_groups_give_rights_and_take_them(provider, configure, sign_in):
    keepers, others = Group.objects.create(name="keepers"), Group.objects.create(name="others")
    groups = MappingProxyType({"ops": "keepers", "none": "missing"})
    configure(superuser_groups=frozenset({"root"}), groups=groups)
    provider.claims = {"sub": "1234", **EMAIL, "groups": ["root", "ops", "none"]}
    sign_in(Client())
    account = User.objects.get()
    assert account.is_superuser
    assert list(account.groups.all()) == [keepers]
    account.groups.add(others)
    provider.claims = {"sub": "1234", **EMAIL, "groups": []}
    sign_in(Client())
    account.refresh_from_db()
    assert not account.is_superuser
    assert list(account.groups.all()) == [others]
    assert Change.objects.filter(kind="account").first().actor == "OpenID Connect"


def unsigned(claims):
    return jwt.encode(claims, None, "none")


def by_shared_secret(claims):
    return jwt.encode(claims, SECRET, "HS256", headers={"kid": "k1"})


def by_another_key(claims):
    return jwt.encode(claims, OTHER_KEY, "RS256", headers={"kid": "k1"})


def by_another_algorithm(claims):
    return jwt.encode(claims, OTHER_KEY, "RS512", headers={"kid": "k1"})


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"}, {"aud": "another"}, {"aud": [CLIENT, "another"]}, {"azp": "another"},
        {"nonce": "another"}, {"nonce": None}, {"exp": int(time.time()) - 3600}, {"exp": None}, {"sub": None},
        {"sub": ""}, {"sub": "x" * 256}, {"sub": 5}, {"iat": None}, {"nbf": int(time.time()) + 3600},
    ],
)  # fmt: skip
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(client, provider, sign_in, changes):
    provider.changes = changes
    assert refused(sign_in(), client)
    provider.changes = {}
    sign_in()
    assert is_in(client)


@pytest.mark.parametrize(
    "sign", [unsigned, by_shared_secret, by_another_key, by_another_algorithm, lambda claims: "a.b.c", lambda _: None]
)
@pytest.mark.filterwarnings("ignore:The HMAC key")
def test_an_id_token_without_the_providers_signature_is_refused(client, provider, sign_in, sign):
    provider.sign = sign
    assert refused(sign_in(), client)


def test_a_rotated_key_is_fetched_and_a_withdrawn_one_no_longer_used(provider, sign_in, monkeypatch):
    sign_in(Client())
    provider.key, provider.kid, provider.published = OTHER_KEY, "k2", {"k2": OTHER_KEY}
    monkeypatch.setattr(protocol, "REFETCH_S", 0)
    browser = Client()
    sign_in(browser)
    assert is_in(browser)


def test_the_redirect_must_answer_the_sign_in_of_this_browser(client, provider, sign_in, configure):
    victim, attacker = client, Client()
    location = attacker.get("/dashboards/oidc/begin")["location"]
    planted = provider.authorize(location).removeprefix("http://127.0.0.1:8001")
    assert refused(victim.get(planted), victim)  # the victim began nothing
    own = victim.get("/dashboards/oidc/begin")["location"]
    assert refused(victim.get(planted), victim)  # the attacker's state and code
    victim.get("/dashboards/oidc/begin")
    answer = provider.authorize(own).removeprefix("http://127.0.0.1:8001")
    assert refused(victim.get(answer), victim)  # of an earlier sign-in
    victim.get("/dashboards/oidc/begin")
    assert refused(victim.get("/dashboards/oidc/callback?error=access_denied&state=x"), victim)


def test_a_code_of_another_browser_is_worthless_with_ones_own_state(provider, sign_in, client):
    attacker = Client()
    stolen = provider.authorize(client.get("/dashboards/oidc/begin")["location"])
    code = stolen.partition("code=")[2].partition("&")[0]
    state = attacker.get("/dashboards/oidc/begin")["location"].partition("state=")[2].partition("&")[0]
    answer = attacker.get("/dashboards/oidc/callback", {"code": code, "state": state})
    assert refused(answer, attacker)


def test_the_cookie_of_a_sign_in_is_used_once_and_not_for_long(client, provider, sign_in):
    begun = client.get("/dashboards/oidc/begin")
    cookie = begun.cookies["apimgmt_oidc"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    back = provider.authorize(begun["location"]).removeprefix("http://127.0.0.1:8001")
    assert client.get(back).cookies["apimgmt_oidc"].value == ""
    late = Client()
    begun = late.get("/dashboards/oidc/begin")
    with time_machine.travel(time.time() + 601):
        answer = late.get(provider.authorize(begun["location"]).removeprefix("http://127.0.0.1:8001"))
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("metadata", "path", "given"),
    [
        ({"issuer": "https://evil.example"}, "", None),
        ({"authorization_endpoint": "http://evil.example/"}, "", None),
        ({"authorization_endpoint": "javascript:alert(1)"}, "", None),
        ({}, "/.well-known/openid-configuration", (500, {})),
        ({}, "/.well-known/openid-configuration", (200, b"[")),
        ({}, "/.well-known/openid-configuration", (200, b"x" * 300_000)),
        ({}, "/.well-known/openid-configuration", (302, {}, [("Location", "http://127.0.0.1:9/")])),
    ],
)
def test_a_provider_that_does_not_answer_well_is_named_so(client, provider, configure, metadata, path, given):
    provider.metadata = metadata
    provider.answer = lambda requested: given if requested == path else None
    assert client.get("/dashboards/oidc/begin").status_code == 503
    assert client.get("/dashboards/login").status_code == 200


def test_the_second_factor_is_asked_for_after_the_provider_too(client, provider, sign_in, configure, settings):
    sign_in(Client())
    enrolled(User.objects.get())
    sign_in()
    assert client.get("/admin/")["location"].startswith("/dashboards/second-factor?")
    assert second_factor.authenticator_of(User.objects.get()) is not None
    settings.REQUIRE_SECOND_FACTOR = True
    provider.claims = {"sub": "5678", "groups": ["gateway"]}
    another = Client()
    sign_in(another)
    assert another.get("/admin/")["location"].startswith("/dashboards/second-factor/enrol?")


def test_it_leads_to_no_other_origin(sign_in):
    assert sign_in(following="https://evil.example/")["location"] == "/"
    assert sign_in(following="//evil.example/")["location"] == "/"


def test_a_client_that_must_post_its_secret_does(client, provider, sign_in):
    provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    sign_in()
    assert is_in(client)


def test_a_key_set_with_two_keys_needs_the_keys_name(client, provider, sign_in):
    provider.published = {"k1": provider.key, "k0": OTHER_KEY}
    sign_in()
    assert is_in(client)
    assert jwk("k0", OTHER_KEY)["kid"] == "k0"
