import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from accounts import trail
from accounts.tests.conftest import PASSWORD
from audit.models import Change

NEW_PASSWORD = "another-long-passphrase"
ADDRESS = "203.0.113.7"


@pytest.fixture
def client():
    return Client(REMOTE_ADDR=ADDRESS)


def changes(*kinds):
    rows = Change.objects.filter(kind__in=kinds).order_by("id")
    return [(row.actor, row.action, row.name) for row in rows]


def last(kind):
    return Change.objects.filter(kind=kind).first()


def test_sign_ins_failures_and_sign_outs_are_recorded_with_the_address(client, operator, sign_in):
    sign_in(password="wrong-and-secret")
    sign_in()
    client.post(reverse("admin:logout"))
    client.post("/dashboards/login", {"username": "olga", "password": PASSWORD})
    client.post("/dashboards/logout")
    assert changes("session") == [
        ("olga", "sign-in-failed", "olga"),
        ("olga", "signed-in", "olga"),
        ("olga", "signed-out", "olga"),
        ("olga", "signed-in", "olga"),
        ("olga", "signed-out", "olga"),
    ]
    notes = set(Change.objects.filter(kind="session").values_list("note", flat=True))
    assert notes == {f"with a password, from {ADDRESS}", f"from {ADDRESS}"}
    assert "wrong-and-secret" not in str(list(Change.objects.values()))


def test_the_name_of_a_failed_sign_in_to_no_account_is_not_kept(operator, sign_in):
    sign_in(name="my-password-by-mistake")
    assert changes("session") == [("unknown", "sign-in-failed", "unknown")]


def test_a_sign_in_of_a_disabled_account_or_of_no_operator_is_a_failure(operator, sign_in, db):
    User.objects.create_user("eve", password=PASSWORD)
    sign_in(name="eve")
    User.objects.update(is_active=False)
    sign_in()
    assert changes("session") == [("eve", "sign-in-failed", "eve"), ("olga", "sign-in-failed", "olga")]


def test_a_stranger_cannot_fill_the_log_with_failures(operator, monkeypatch):
    for number in range(2 * trail.FAILURES_MAX):
        browser = Client(REMOTE_ADDR=f"198.51.{number}.1")
        browser.post("/admin/login/", {"username": f"n{number}", "password": "x"})
    failures = Change.objects.filter(action="sign-in-failed")
    assert failures.count() == trail.FAILURES_MAX
    assert "further failures" in failures.first().note


def test_every_change_of_an_account_in_the_admin_is_recorded_with_its_author_and_address(client, operator):
    client.force_login(operator)
    made = {"username": "sam", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD, "usable_password": "true"}
    client.post(reverse("admin:auth_user_add"), made)
    sam = User.objects.get(username="sam")
    group = Group.objects.create(name="keepers")
    right = Permission.objects.get(codename="view_key")
    form = {"username": "sam", "is_active": "on", "is_staff": "on", "is_superuser": "on", "groups": [group.pk]}
    joined = f"{sam.date_joined:%Y-%m-%d}", f"{sam.date_joined:%H:%M:%S}"
    form |= {"user_permissions": [right.pk], "date_joined_0": joined[0], "date_joined_1": joined[1]}
    assert client.post(reverse("admin:auth_user_change", args=[sam.pk]), form).status_code == 302
    new = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    assert client.post(reverse("admin:auth_user_password_change", args=[sam.pk]), new).status_code == 302
    client.post(reverse("admin:auth_user_delete", args=[sam.pk]), {"post": "yes"})
    rows = list(Change.objects.filter(name="sam").order_by("id"))
    assert {(row.actor, row.note) for row in rows} == {("olga", f"from {ADDRESS}")}
    assert [(row.kind, row.action) for row in rows] == [
        ("account", "created"),
        ("account", "updated"),
        ("account", "updated"),
        ("account", "updated"),
        ("password", "updated"),
        ("account", "deleted"),
    ]
    assert (rows[0].after["is_staff"], rows[1].after["is_staff"], rows[1].after["is_superuser"]) == (False, True, True)
    assert (rows[3].before["groups"], rows[3].before["permissions"]) != (rows[3].after["groups"], ["keys.view_key"])
    assert (rows[-1].before["groups"], rows[-1].before["permissions"]) == (["keepers"], ["keys.view_key"])
    everything = str([(row.before, row.after, row.note) for row in rows])
    assert sam.password not in everything
    assert NEW_PASSWORD not in everything


def test_ones_own_change_of_password_is_recorded(client, operator):
    client.force_login(operator)
    form = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert client.post(reverse("admin:password_change"), form).status_code == 302
    assert (last("password").actor, last("password").name, last("password").note) == ("olga", "olga", f"from {ADDRESS}")


def test_what_commands_and_code_change_is_recorded_too(operator, monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    monkeypatch.setattr("sys.argv", ["manage.py", "createsuperuser"])
    call_command("createsuperuser", "--noinput", username="root", email="root@example.com")
    assert (last("account").actor, last("account").name) == ("manage.py createsuperuser", "root")
    group = Group.objects.create(name="keepers")
    group.permissions.add(Permission.objects.get(codename="view_key"))
    assert last("group").after == {"name": "keepers", "permissions": ["keys.view_key"]}
    group.user_set.add(operator)
    assert (last("account").name, last("account").after["groups"]) == ("olga", ["keepers"])
    group.user_set.clear()
    assert (last("account").name, last("account").after["groups"]) == ("olga", [])
    Permission.objects.get(codename="view_key").user_set.add(operator)
    assert last("account").after["permissions"] == ["keys.view_key"]
    before = Change.objects.count()
    operator.save(update_fields=["last_login"])
    operator.save()
    assert Change.objects.count() == before


def test_sign_ins_are_no_part_of_the_configuration_of_an_instant(client, operator):
    client.force_login(operator)
    rows = client.get("/api/v1/audit/?as_of=2999-01-01T00:00:00Z").json()["results"]
    assert [(row["kind"], row["name"]) for row in rows] == [("account", "olga")]
    signed = client.get("/api/v1/audit/?action=signed-in").json()["results"]
    assert [(row["actor"], row["before"], row["after"]) for row in signed] == [("olga", None, None)]


def test_the_audit_log_shows_sign_ins_in_the_admin(client, operator, sign_in):
    sign_in()
    assert "signed-in" in client.get(reverse("admin:audit_change_changelist")).content.decode()
    row = last("session")
    assert client.get(reverse("admin:audit_change_change", args=[row.pk])).status_code == 200
