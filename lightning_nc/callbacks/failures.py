"""Measurements that were skipped: each one counted, each cause told once in a run."""

from collections.abc import Sequence
from typing import Any

from lightning_nc.callbacks.messages import say_once, tell, topic_of
from lightning_nc.callbacks.moments import Moment
from lightning_nc.callbacks.record import Cause, Record
from lightning_nc.passes.agreement import told_by
from lightning_nc.passes.request import DoesNotApply
from lightning_nc.wording import first_sentence

Failed = Sequence[tuple[Record, Exception]]

_LISTED = 3  # causes in the line at the end of training


def count_failures(trainer: Any, failed: Failed, moment: Moment) -> list[tuple[Record, Exception]]:
    """Count the measurements that failed, and return why.

    A family that does not apply is no failure unless it was asked for by name; it is said once. It
    is due again the next time, since data and class counts may change, and since all processes must
    agree on what is due.
    """
    counted = []
    for record, error in failed:
        if moment.stage == "fit":
            record.skipped.add(moment.key)
        if isinstance(error, DoesNotApply) and not record.asked_for:
            say_inapplicable(trainer, record, error)
        else:
            record.failures += 1
            counted.append((record, error))
    return counted


def say_inapplicable(trainer: Any, record: Record, reason: Exception) -> None:
    """Say once, in Lightning's log, that a family does not apply."""
    text = f"{record.title} does not apply and logs nothing: {reason}"
    say_once(trainer, record.told, topic_of(text), text)


def tell_of_failures(trainer: Any, failed: Failed, moment: Moment) -> None:
    """Raise a failure if a callback requests it, else report each cause once in a run.

    Two causes are the same if type and message are, except for numbers in them. One that several
    callbacks share is reported once for all of them or, if they measure by different passes, with
    the way out the first time only.
    """
    for record, error in failed:
        if record.on_error == "raise":
            raise error
    for error in dict.fromkeys(error for _, error in failed):
        # that a family does not apply is no error of a process
        rank, says_all = trainer.global_rank, isinstance(error, DoesNotApply)
        text = str(error) if says_all else told_by(rank, error)
        unaware = []
        for record in [record for record, each in failed if each is error]:
            cause = record.causes.setdefault(topic_of(text), Cause(text))
            cause.times += 1
            if cause.times == 1:
                unaware.append(record)
        if unaware:
            told, topic = unaware[0].told_of_run, f"run {unaware[0].runs}: {topic_of(text)}"
            why = first_sentence(text) if topic in told else text + _way_out(text)
            told.add(topic)
            tell(
                trainer,
                f"{names_of(unaware)} skipped the measurement on '{unaware[0].probe.key}' after "
                f"{moment.epochs_completed:g} epochs; {why}",
            )


def tell_how_often(trainer: Any, records: Sequence[Record]) -> None:
    """Report how many measurements of a run were skipped and why, unless all that was told.

    Callbacks of one probe that have skipped as many for the same causes are named together.
    """
    alike: dict[Any, list[Record]] = {}
    for record in records:
        times = tuple((topic, cause.times) for topic, cause in record.causes.items())
        alike.setdefault((record.probe.key, record.attempts, times), []).append(record)
    for each in alike.values():
        first = each[0]
        causes = sorted(first.causes.values(), key=lambda cause: -cause.times)
        skipped = sum(cause.times for cause in causes)
        if skipped > len(causes):
            tell(
                trainer,
                f"{names_of(each)} on '{first.probe.key}': {skipped} of {first.attempts} "
                f"measurements were skipped: {_shown(causes)}.",
            )


def _shown(causes: Sequence[Cause]) -> str:
    """The causes in short, the first ones only."""
    shown = [first_sentence(cause.text) for cause in causes]
    if len(causes) > 1:
        shown = [f"{text} ({c.times} of them)" for text, c in zip(shown, causes, strict=True)]
    more = f"; and {len(causes) - _LISTED} more causes" if len(causes) > _LISTED else ""
    return "; ".join(shown[:_LISTED]) + more


def names_of(records: Sequence[Record]) -> str:
    """Return the names of callbacks, for messages."""
    return " and ".join(record.name for record in records)


def _way_out(cause: str) -> str:
    """Return what to do about an error that is not ours and whose message does not say."""
    if "MemoryError" in cause or "out of memory" in cause.lower():
        return ". Use Probe(cache_mb=0) or a smaller Probe(batch_size=...)."
    return ""
