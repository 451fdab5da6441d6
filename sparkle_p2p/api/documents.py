"""The JSON documents that the local API speaks, and their way back into view types."""

from typing import Any

import msgspec

from sparkle_p2p.view import Event, NodeView


def event_document(event: Event) -> dict[str, Any]:
    """One JSON line of ``--json`` logs and server-sent events: ``event`` and ``time`` beside its fields."""
    return {**event.fields, "event": event.event, "time": round(event.time, 3)}


def event_from_document(document: dict[str, Any]) -> Event:
    """The event that ``event_document`` wrote."""
    fields = {key: value for key, value in document.items() if key not in ("event", "time")}
    return Event(event=str(document["event"]), time=float(document["time"]), fields=fields)


def encode(document: Any) -> bytes:
    """Compact JSON of built-in types, dataclasses and bytes (as base64)."""
    return msgspec.json.encode(document)


def view_from_json(body: bytes) -> NodeView:
    """The ``NodeView`` that ``/api/v1/view`` sent.

    Raises:
        msgspec.ValidationError: it is none (another version of Sparkle answered).
    """
    return msgspec.json.decode(body, type=NodeView)
