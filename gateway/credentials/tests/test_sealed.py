import pytest

from gateway.credentials.sealed import NotOpened, Sealed, seal, unseal

KEY = b"k" * 48


def test_a_secret_is_opened_with_the_same_key_and_purpose_alone():
    sealed = seal(KEY, "route a", b"secret")
    assert unseal(KEY, "route a", sealed) == b"secret"
    assert b"secret" not in sealed.encode()
    for key, purpose, text in [
        (b"x" * 48, "route a", sealed),
        (KEY, "route b", sealed),
        (KEY, "route a", sealed[:-4] + "AAAA"),
        (KEY, "route a", ""),
        (KEY, "route a", "ä"),
        (KEY, "route a", "AAAA"),
    ]:
        with pytest.raises(NotOpened):
            unseal(key, purpose, text)


def test_the_same_secret_is_sealed_differently_each_time_and_each_has_an_id():
    first, second = seal(KEY, "a", b"secret"), seal(KEY, "a", b"secret")
    assert first != second
    assert len({first.id, second.id, Sealed().id}) == 3
    assert Sealed().id == ""
