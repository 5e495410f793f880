"""Which stages run on which account: those whose adapter, or whose judge's model, is a provider's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine import registry
from engine.domain.stage import Stage, StageKind
from engine.domain.sweep import Account
from engine.ports.account import ApiJudge
from engine.ports.provider import Access
from engine.registry import Kind, Ref


def provider_of(kind: StageKind, adapter: str) -> str | None:
    """Return the provider that a stage runs at, or None when it runs here.

    Args:
        kind: The stage's kind.
        adapter: The stage's adapter: for judges the whole reference, whose argument may be a hosted model.

    >>> provider_of(StageKind.TUNE, "local/sft") is None
    True
    """
    if kind is StageKind.SAMPLE:
        return None
    name = asked_of(adapter).ref.name if kind is StageKind.JUDGE else Ref.parse(adapter).name
    return name if name in registry.names(Kind.PROVIDER) else None


def access_of(name: str, account: Account) -> Access:
    """Return how an account is reached, with its provider's variable for the key where it names none.

    Args:
        name: The account's name in the spec.
        account: Its settings.
    """
    key_env = account.key_env or registry.adapter(Kind.PROVIDER, account.provider).key_env
    return Access(name, account.base_url, key_env, account.timeout)


@dataclass(frozen=True, slots=True)
class AskedModel:
    """What the reference of a judge that asks a model says: `JUDGE:PROVIDER@ACCOUNT:MODEL#FILE`.

    Attributes:
        ref: The model's reference.
        file: A file of the user's for the judge; empty for none.
    """

    ref: Ref
    file: str

    @property
    def model(self) -> str:
        """The model's name at its provider."""
        return self.ref.argument


def asked_of(judge: str) -> AskedModel:
    """Return which model a judge asks, by its reference.

    >>> asked_of("grader:acme/hosted@lab:small-1#policies/mine.txt")
    AskedModel(ref=Ref(name='acme/hosted', account='lab', argument='small-1'), file='policies/mine.txt')
    """
    reference, _, file = Ref.parse(judge).argument.partition("#")
    return AskedModel(Ref.parse(reference), file)


def asking(judge: str) -> ApiJudge | None:
    """Return a judge with what its reference gives it, or None when it asks no model.

    Raises:
        OSError: The file in the reference cannot be read.
        ValueError: There is something wrong with it.
    """
    found = registry.adapter(Kind.JUDGE, judge)
    return found.given(asked_of(judge).file) if isinstance(found, ApiJudge) else None


def without_account(judge: str) -> str:
    """Return a judge's reference without the account of the model that it asks: who is asked for it is no part of a key.

    >>> without_account("grader:acme/hosted@lab:small-1#policies/mine.txt"), without_account("standin/rules")
    ('grader:acme/hosted:small-1#policies/mine.txt', 'standin/rules')
    """
    outer, account = Ref.parse(judge), asked_of(judge).ref.account
    return str(Ref(outer.name, outer.account, outer.argument.replace(f"@{account}", "", 1))) if account else judge


def at_provider(accounts: Mapping[str, Account], provider: str) -> list[str]:
    """Return the names of the accounts at a provider, in the spec's order."""
    return [name for name, account in accounts.items() if account.provider == provider]


def accounts_of(stages: Mapping[str, Stage], accounts: Mapping[str, Account]) -> dict[str, str]:
    """Return the account of every stage that runs on one, by stage key.

    A tune or a generate stage runs on the account of its model, a judge on that of the model that it asks: the one that the
    reference names, or else the provider's only one, of which `engine.plan.check_hosted` has made sure.
    """
    return dict(_accounts_of(stages, accounts)) if accounts else {}


def _accounts_of(stages: Mapping[str, Stage], accounts: Mapping[str, Account]) -> Iterator[tuple[str, str]]:
    memo = dict[tuple[StageKind, str, str], str | None]()
    for key, stage in stages.items():
        named = stage.binding.judge if stage.kind is StageKind.JUDGE else stage.binding.model
        what = stage.kind, stage.adapter, named
        if what not in memo:
            provider = provider_of(stage.kind, stage.adapter)
            ref = asked_of(named).ref if stage.kind is StageKind.JUDGE else Ref.parse(named)
            memo[what] = None if provider is None else ref.account or at_provider(accounts, provider)[0]
        if (account := memo[what]) is not None:
            yield key, account
