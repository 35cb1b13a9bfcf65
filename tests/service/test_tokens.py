"""Tokens: what is kept of them, who they let in, and that near misses do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthmap.errors import JobError
from earthmap.service.database import open_database
from earthmap.service.tokens import Quotas, Role, TokenStore


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenStore]:
    store = TokenStore(open_database(tmp_path_factory.mktemp("tokens") / "state.sqlite"))
    yield store
    store.database.close()


def test_a_token_says_who_it_is_and_what_it_may(tokens: TokenStore) -> None:
    quotas = Quotas(area_km2=100.0, tiles=50, read_bytes=10**9, open_jobs=2)
    holder = tokens.check(tokens.make("team-a", role=Role.SUBMITTER, quotas=quotas))
    assert holder is not None
    assert (holder.owner, holder.role, holder.quotas) == ("team-a", Role.SUBMITTER, quotas)
    assert holder.may_submit
    assert not holder.sees_all
    viewer = tokens.check(tokens.make("team-a", role=Role.VIEWER))
    assert viewer is not None
    assert not viewer.may_submit


def test_a_revoked_token_opens_nothing(tokens: TokenStore) -> None:
    text = tokens.make("bob", role=Role.OPERATOR)
    holder = tokens.check(text)
    assert holder is not None
    assert tokens.revoke(holder.id)
    assert tokens.check(text) is None
    assert not tokens.revoke(holder.id)
    assert not tokens.revoke("nobody")
    assert [one.revoked is not None for one in tokens.all() if one.holder.id == holder.id] == [True]


def test_the_token_itself_is_kept_nowhere(tokens: TokenStore) -> None:
    text = tokens.make("carol", role=Role.VIEWER)
    path = Path(str(tokens.database.engine.url.database))
    kept = b"".join(one.read_bytes() for one in path.parent.iterdir())
    assert text.split("_", 2)[2].encode() not in kept  # the secret may have such a line in it, too
    assert text.encode() not in kept
    assert text not in repr(tokens.all())


@given(st.data())
def test_a_near_miss_is_a_miss(tokens: TokenStore, data: st.DataObject) -> None:
    text = tokens.make("dora", role=Role.VIEWER)
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda one: one != text[place]))
    assert tokens.check(text[:place] + letter + text[place + 1 :]) is None
    assert tokens.check(text[:-1]) is None
    assert tokens.check(text + "A") is None
    assert tokens.check(text + "\n") is None


@pytest.mark.parametrize("owner", ["", " ", "a b", "x" * 41, "../etc", "a\n", "ü"])
def test_an_owner_is_a_name(tokens: TokenStore, owner: str) -> None:
    with pytest.raises(JobError, match="no owner's name"):
        tokens.make(owner, role=Role.VIEWER)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_quota_is_a_number_above_nothing(value: float) -> None:
    with pytest.raises(JobError, match="quota area_km2"):
        Quotas(area_km2=value)
