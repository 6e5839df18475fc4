import re
import time
from io import StringIO

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django_otp.oath import TOTP
from rest_framework.test import APIClient

from accounts import second_factor
from accounts.models import Authenticator, RecoveryCode, Token
from accounts.tests.tokens import token_of
from audit.models import Change
from operators.attempts import attempts

PROVE, ENROL = "/dashboards/second-factor", "/dashboards/second-factor/enrol"
PAGES = ["/admin/", "/admin/keys/key/", "/dashboards/", "/dashboards/usage", "/dashboards/last-hour",
         "/dashboards/account", "/dashboards/live", "/", "/docs/", "/docs/reference/openapi",
         "/admin/password_change/", "/admin/accounts/token/add/"]  # fmt: skip


@pytest.fixture
def clock():
    with time_machine.travel(time.time() // 30 * 30, tick=False) as travelling:
        yield travelling


@pytest.fixture
def app(operator, clock):
    """Return the code that olga's app shows; her second factor is set up."""
    codes = enrolled(operator)

    def code(steps=0):
        return code_of(Authenticator.objects.get(account=operator), steps)

    code.recovery = codes
    clock.shift(60)
    return code


def code_of(authenticator, steps=0):
    totp = TOTP(second_factor.secret_of(authenticator))
    totp.time = time.time() + 30 * steps
    return f"{totp.token():06}"


def enrolled(account):
    waiting = second_factor.begin_enrolment(account)
    return second_factor.confirm(account, code_of(waiting), by=account.username)[1]


def prove(client, code, **more):
    return client.post(PROVE, {"code": code, "next": "/admin/"}, **more)


def test_it_is_off_by_default(client, operator, sign_in):
    sign_in()
    assert client.get("/admin/").status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_after_the_password_no_page_opens_before_the_code(client, app, sign_in, path):
    assert sign_in()["location"] == "/admin/"
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer["location"].startswith(f"{PROVE}?next=")
    assert prove(client, app())["location"] == "/admin/"
    assert client.get("/admin/").status_code == 200


def test_the_sign_in_of_the_dashboards_asks_for_the_code_too(client, app):
    client.post("/dashboards/login", {"username": "olga", "password": "a-long-enough-passphrase"})
    assert client.get("/dashboards/")["location"].startswith(PROVE)
    assert prove(client, app()).status_code == 302
    assert client.get("/dashboards/").status_code == 200


def test_the_management_api_refuses_a_session_without_the_code(client, app, sign_in):
    sign_in()
    answer = client.get("/api/v1/tiers/")
    assert (answer.status_code, answer["content-type"]) == (403, "application/problem+json")
    assert client.post("/api/v1/tokens/", {"name": "a"}, content_type="application/json").status_code == 403
    assert not Token.objects.exists()
    prove(client, app())
    assert client.get("/api/v1/tiers/").status_code == 200


def test_forms_are_refused_without_the_code(client, app, sign_in):
    sign_in()
    for path in ("/admin/accounts/token/add/", "/dashboards/account/second-factor/remove"):
        assert client.post(path, {"name": "a"})["location"].startswith(PROVE)
    assert not Token.objects.exists()
    assert client.post("/admin/logout/")["location"] == "/"


def test_a_code_is_accepted_once(app, sign_in, clock):
    first, second = Client(), Client()
    for browser in (first, second):
        sign_in(browser=browser)
    code, earlier = app(), app(-1)
    assert prove(first, code).status_code == 302
    assert prove(second, code).status_code == 400
    assert prove(second, earlier).status_code == 400
    assert second.get("/admin/").status_code == 302
    clock.shift(30)
    assert prove(second, app()).status_code == 302


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "-12345", "1e5", "\x00"])
def test_what_is_no_code_is_refused(client, app, sign_in, code):
    sign_in()
    assert prove(client, code).status_code == 400


def test_codes_of_other_times_and_accounts_are_refused(client, app, sign_in, make_operator):
    sam = make_operator("sam")
    enrolled(sam)
    sign_in()
    for code in (app(3), app(-3), code_of(sam.authenticator, 1)):
        assert prove(client, code).status_code == 400
    assert prove(client, f"{app()[:3]} {app()[3:]}").status_code == 302


def test_wrong_codes_make_the_account_wait_from_wherever_they_come(app, sign_in, clock):
    for number in range(second_factor.FREE_FAILURES):
        browser = Client(REMOTE_ADDR=f"203.0.113.{number}")
        sign_in(browser=browser)
        assert prove(browser, "000000").status_code == 400
    attempts.forget()
    elsewhere = Client(REMOTE_ADDR="198.51.100.1")
    sign_in(browser=elsewhere)
    refused = prove(elsewhere, app())
    assert (refused.status_code, refused["retry-after"]) == (429, "30")
    assert prove(elsewhere, app.recovery[0]).status_code == 429
    clock.shift(31)
    assert prove(elsewhere, "000000").status_code == 400
    clock.shift(31)
    assert prove(elsewhere, app()).status_code == 429  # each further one doubles the wait
    clock.shift(31)
    assert prove(elsewhere, app()).status_code == 302
    assert Authenticator.objects.get().failures == 0


def test_a_recovery_code_opens_once(app, sign_in):
    first, second = Client(), Client()
    for browser in (first, second):
        sign_in(browser=browser)
    code = app.recovery[3]
    assert prove(first, f" {code.upper()} ").status_code == 302
    assert prove(second, code).status_code == 400
    assert RecoveryCode.objects.count() == second_factor.RECOVERY_CODES - 1


def test_the_database_alone_has_neither_secret_nor_codes(app, settings):
    row = Authenticator.objects.values().get()
    stored = str([row, list(RecoveryCode.objects.values())])
    authenticator = Authenticator.objects.get()
    for code in app.recovery:
        assert code not in stored
        assert code.replace("-", "") not in stored
    assert second_factor.secret_text(authenticator) not in stored
    assert second_factor.secret_of(authenticator).hex() not in stored
    before = second_factor.secret_of(authenticator)
    settings.SECRET_KEY = "another-secret-key-of-at-least-32-characters"
    assert second_factor.secret_of(authenticator) != before


def test_enforced_every_operator_enrols_before_anything_else(client, operator, sign_in, settings, clock):
    settings.REQUIRE_SECOND_FACTOR = True
    sign_in()
    for path in PAGES:
        assert client.get(path)["location"].startswith(f"{ENROL}?next="), path
    assert client.get("/api/v1/tiers/").status_code == 403
    assert client.get(PROVE).status_code == 302
    page = client.get(ENROL)
    secret = re.search(r'<code class="secret">([A-Z2-7]{32})</code>', page.content.decode())[1]
    assert secret == second_factor.secret_text(Authenticator.objects.get())
    assert b"<svg" in page.content
    assert "unsafe" not in page["content-security-policy"]
    assert b"style=" not in page.content
    assert "no-store" in page["cache-control"]
    assert client.post(ENROL, {"code": "000000"}).status_code == 400
    assert client.get("/admin/").status_code == 302
    before = client.session.session_key
    shown = client.post(ENROL, {"code": code_of(Authenticator.objects.get())})
    assert len(re.findall(r"<li><code>[a-z2-9]{5}-[a-z2-9]{5}</code></li>", shown.content.decode())) == 10
    assert client.session.session_key != before
    assert client.get("/admin/").status_code == 200


def test_enforced_a_session_of_before_must_enrol_too(client, operator, sign_in, settings):
    sign_in()
    assert client.get("/admin/").status_code == 200
    settings.REQUIRE_SECOND_FACTOR = True
    assert client.get("/admin/")["location"].startswith(ENROL)


def test_enforced_tokens_are_issued_by_sessions_that_have_proved_it_alone(client, operator, sign_in, settings, app):
    settings.REQUIRE_SECOND_FACTOR = True
    api = APIClient()
    api.credentials(HTTP_AUTHORIZATION=f"Token {token_of(operator)}")
    assert api.get("/api/v1/tokens/").status_code == 200
    assert api.post("/api/v1/tokens/", {"name": "b"}).status_code == 403
    sign_in()
    client.post("/admin/accounts/token/add/", {"name": "b"})
    prove(client, app())
    assert client.post("/admin/accounts/token/add/", {"name": "c"}).status_code == 200
    assert client.post("/api/v1/tokens/", {"name": "d"}, content_type="application/json").status_code == 201
    assert set(Token.objects.values_list("name", flat=True)) == {"tests", "c", "d"}


def test_an_enrolled_account_is_not_enrolled_anew_by_a_password_alone(client, app, sign_in):
    sign_in()
    before = Authenticator.objects.values().get()
    assert client.get(ENROL).status_code == 302
    assert client.post(ENROL, {"code": app()}).status_code == 302
    assert Authenticator.objects.values().get() == before


def test_removing_it_and_new_recovery_codes_need_a_code(client, app, sign_in, clock):
    sign_in()
    prove(client, app())
    assert client.get("/dashboards/account").status_code == 200
    for path in ("/dashboards/account/second-factor/remove", "/dashboards/account/recovery-codes"):
        client.post(path, {"code": "000000"})
    assert Authenticator.objects.get().recovery_codes.filter(digest=second_factor._digest(app.recovery[0])).exists()
    clock.shift(30)
    shown = client.post("/dashboards/account/recovery-codes", {"code": app()})
    assert b"recovery codes" in shown.content
    assert not RecoveryCode.objects.filter(digest=second_factor._digest(app.recovery[0])).exists()
    clock.shift(30)
    client.post("/dashboards/account/second-factor/remove", {"code": app()})
    assert not Authenticator.objects.exists()
    assert client.get("/admin/").status_code == 200


def test_it_is_reset_for_somebody_who_lost_it_by_right_and_its_sessions_end(app, operator, make_operator, sign_in):
    waiting = Client()
    sign_in(browser=waiting)
    admin = Client()
    reset = reverse("admin:auth_user_reset_second_factor", args=[operator.pk])
    for helper in (make_operator("sam", "view_user", "change_user"), make_operator("kim", "view_user", "change_user",
                   "reset_authenticator")):  # fmt: skip
        admin.force_login(helper)
        assert admin.post(reset).status_code == 403  # neither the right, nor rights as high as olga's
    assert Authenticator.objects.exists()
    admin.force_login(User.objects.create_superuser("root"))
    assert admin.get(reset).status_code == 200
    assert admin.post(reset).status_code == 302
    assert not Authenticator.objects.exists()
    assert waiting.get("/admin/")["location"].startswith("/admin/login/")
    change = Change.objects.filter(kind="second-factor").first()
    assert (change.actor, change.action, change.name, change.note) == ("root", "deleted", "olga", "from 127.0.0.1")


def test_the_right_resets_for_an_account_with_no_more_rights(client, make_operator, clock):
    ann = make_operator("ann", "view_user")
    enrolled(ann)
    client.force_login(make_operator("kim", "view_user", "reset_authenticator"))
    assert client.post(reverse("admin:auth_user_reset_second_factor", args=[ann.pk])).status_code == 302
    assert not Authenticator.objects.exists()


def test_enrolment_failures_and_uses_are_recorded_without_secrets(client, app, sign_in, operator):
    sign_in()
    prove(client, "000000")
    prove(client, app())
    kinds = Change.objects.filter(kind__in=("second-factor", "session")).order_by("id")
    assert [(row.kind, row.action) for row in kinds] == [
        ("second-factor", "created"),
        ("session", "signed-in"),
        ("session", "sign-in-failed"),
    ]
    assert "wrong code of the second factor" in kinds.last().note
    stored = str(list(Change.objects.values()))
    assert Authenticator.objects.get().salt not in stored


@pytest.mark.parametrize(
    "following", ["//evil.example/", "https://evil.example/", "javascript:alert(1)", "/\\evil.example"]
)
def test_it_leads_to_no_other_origin(client, app, sign_in, following):
    sign_in()
    answer = client.post(PROVE, {"code": app(), "next": following})
    assert answer["location"] == "/dashboards/account"


def test_a_command_resets_it(app, operator):
    call_command("reset_second_factor", "olga", stdout=StringIO())
    assert not Authenticator.objects.exists()
    assert Change.objects.filter(kind="second-factor").first().actor == "manage.py reset_second_factor"
    for name in ("olga", "nobody"):
        with pytest.raises(CommandError):
            call_command("reset_second_factor", name)
