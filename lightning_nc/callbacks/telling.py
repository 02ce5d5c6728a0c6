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
    for topic, text in {**answer.notes, **evaluation.notes, **of_change}.items():
        if topic not in evaluation.alerts:
            tell_note(trainer, record, topic, text)
    for topic, text in evaluation.alerts.items():
        if tell_once(trainer, record.told, topic, f"{who}: {text}"):
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


def tell_note(trainer: Any, record: Record, topic: str, text: str) -> None:
    """Report a note once: as a warning, or in the log if its family was not asked for."""
    tell_or_say = tell_once if record.asked_for else say_once
    tell_or_say(trainer, record.told, topic, f"{record.title}: {text}")


def _pooling_in_words(answer: Answer) -> str:
    """How layers are pooled, with the names of those that are pooled alike."""
    of_each: dict[str, list[str]] = {}
    for name, words in answer.pooling.items():
        of_each.setdefault(words, []).append(name)
    said = [f"{first_and_last(names, 3)}: {words}" for words, names in of_each.items()]
    return f"layers are pooled by their shapes ({'; '.join(said)}); pool= changes that."
