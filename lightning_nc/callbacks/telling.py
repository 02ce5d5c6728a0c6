"""What a measurement tells the user: notes, alerts and events."""

from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_nc.callbacks.messages import safely, say_once, tell_once
from lightning_nc.callbacks.publishing import send_alerts
from lightning_nc.callbacks.record import Record
from lightning_nc.measures.measure import Evaluation
from lightning_nc.measures.notes import change_note
from lightning_nc.passes.request import Answer
from lightning_nc.wording import first_and_last


def tell_of_measurement(
    trainer: Any,
    record: Record,
    answer: Answer,
    evaluation: Evaluation,
) -> None:
    """Report notes and alerts once each, and the events of this measurement.

    A failure on the first process alone must not stop it: the others would wait.
    """
    who, timeline = record.title, record.timeline()
    of_change = change_note(timeline) if timeline.last.stage == "fit" else {}
    notes = {**answer.notes, **evaluation.notes, **of_change}
    if not record.asked_for:  # what has no value here was not asked for, so it is no warning
        for topic, text in notes.items():
            say_once(trainer, record.told, topic, f"{who}: {text}")
        notes = {}
    for topic, text in {**notes, **evaluation.alerts}.items():
        if tell_once(trainer, record.told, topic, f"{who}: {text}") and topic in evaluation.alerts:
            send_alerts(trainer, record.told_of_run, topic, f"{who}: {text}")

    def tell_events() -> None:
        if answer.pooling:
            say_once(trainer, record.told, "pooling", f"{who}: {_pooling_in_words(answer)}")
        for title, text in record.measure.events(timeline).items():
            # nothing is wrong, so it goes to Lightning's log, which is set up to be shown
            rank_zero_info(f"{who}: {text}")
            send_alerts(trainer, record.told_of_run, title, f"{who}: {text}")

    if trainer.is_global_zero:
        safely(trainer, record.told, "report what has happened", tell_events)


def _pooling_in_words(answer: Answer) -> str:
    """How layers are pooled, with the names of those that are pooled alike."""
    of_each: dict[str, list[str]] = {}
    for name, words in answer.pooling.items():
        of_each.setdefault(words, []).append(name)
    said = [f"{first_and_last(names, 3)}: {words}" for words, names in of_each.items()]
    return f"layers are pooled by their shapes ({'; '.join(said)}); pool= changes that."
