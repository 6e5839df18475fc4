import pytest
from django.contrib.auth.models import Group, Permission, User
from django.urls import reverse

PASSWORD = "another-long-passphrase"


@pytest.fixture
def sam(client, operator):
    """Return an operator who may change accounts, and is signed in."""
    user = make_account("sam", "view_user", "change_user", "delete_user", "add_user", "view_key")
    client.force_login(user)
    return user


def make_account(name, *rights, **fields):
    user = User.objects.create_user(name, email=f"{name}@example.com", password="x", is_staff=True, **fields)
    user.user_permissions.add(*Permission.objects.filter(codename__in=rights))
    return user


def change(client, account, **changes):
    """Post the form of an account with changes, as a browser sends it."""
    rights = list(account.user_permissions.values_list("pk", flat=True))
    joined = f"{account.date_joined:%Y-%m-%d}", f"{account.date_joined:%H:%M:%S}"
    form = {
        "username": account.username, "email": account.email, "is_active": "on", "is_staff": "on",
        "user_permissions": rights, "date_joined_0": joined[0], "date_joined_1": joined[1],
    }  # fmt: skip
    return client.post(address("change", account), form | changes)


def address(page, account):
    name = "auth_user_password_change" if page == "password" else f"auth_user_{page}"
    return reverse(f"admin:{name}", args=[account.pk])


def right(codename):
    return Permission.objects.get(codename=codename).pk


def test_nobody_makes_itself_a_superuser(client, sam):
    assert "superuser" in change(client, sam, is_superuser="on").content.decode()
    sam.refresh_from_db()
    assert not sam.is_superuser


def test_nobody_gives_a_permission_that_it_lacks(client, sam):
    ann = make_account("ann")
    assert change(client, ann, user_permissions=[right("change_key")]).status_code == 200
    assert change(client, sam, user_permissions=[right("change_key")]).status_code == 200
    assert not Permission.objects.filter(user__in=(ann, sam), codename="change_key").exists()
    assert change(client, ann, user_permissions=[right("view_key")], email="new@example.com").status_code == 302
    ann.refresh_from_db()
    assert ann.email == "new@example.com"
    assert ann.user_permissions.get().codename == "view_key"


def test_nobody_gives_a_group_whose_rights_it_lacks(client, sam):
    group = Group.objects.create(name="keepers")
    group.permissions.add(right("change_key"))
    assert change(client, sam, groups=[group.pk]).status_code == 200
    assert not sam.groups.exists()
    group.permissions.set([right("view_key")])
    assert change(client, sam, groups=[group.pk]).status_code == 302


@pytest.mark.parametrize("above", ["superuser", "permission", "group", "disabled"])
def test_an_account_with_rights_above_ones_own_cannot_be_taken_over(client, sam, above):
    ann = make_account("ann", is_superuser=above == "superuser", is_active=above != "disabled")
    if above in ("permission", "disabled"):
        ann.user_permissions.add(right("change_key"))
    if above == "group":
        group = Group.objects.create(name="keepers")
        group.permissions.add(right("change_key"))
        ann.groups.add(group)
    before = User.objects.values().get(pk=ann.pk)
    new = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    assert change(client, ann, email="sam@example.com").status_code == 403
    assert client.post(address("password", ann), new).status_code == 403
    assert client.post(address("delete", ann), {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [ann.pk], "post": "yes"}
    client.post(reverse("admin:auth_user_changelist"), chosen)
    assert User.objects.values().get(pk=ann.pk) == before


def test_an_account_with_no_more_rights_can_be_changed(client, sam):
    ann = make_account("ann", "view_key")
    new = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    assert client.post(address("password", ann), new).status_code == 302
    ann.refresh_from_db()
    assert ann.check_password(PASSWORD)


def test_a_superuser_gives_every_right(client, operator):
    client.force_login(operator)
    ann = make_account("ann")
    assert change(client, ann, is_superuser="on", user_permissions=[right("change_key")]).status_code == 302
    ann.refresh_from_db()
    assert ann.is_superuser


def test_a_password_has_at_least_twelve_characters(client, operator):
    client.force_login(operator)
    ann = make_account("ann")
    for password, status in (("Xk3-vQ9-pL2", 200), ("Xk3-vQ9-pL2w", 302)):
        new = {"password1": password, "password2": password, "usable_password": "true"}
        assert client.post(address("password", ann), new).status_code == status
