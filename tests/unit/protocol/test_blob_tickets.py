"""Who may read which blob with which ticket, and how often."""

import base64

import pytest

from sparkle_protocol.blobs import tickets as t
from sparkle_protocol.blobs.tickets import Grant, Ticket, TicketOffice, TicketRefused, Wanted
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.identity import Identity

SECOND = 1_000_000_000
ASKER = Identity.from_private_bytes(bytes(31) + b"a").peer_id
OTHER = Identity.from_private_bytes(bytes(31) + b"b").peer_id
BLOB, ANOTHER = BlobId(b"1" * 32), BlobId(b"2" * 32)
CERTIFICATE = b"c" * 32
WANTED = Wanted(BLOB, 3, 9, True)


def office(secret: bytes = b"s" * 32) -> TicketOffice:
    return TicketOffice(secret)


def test_a_ticket_serves_many_requests_in_any_order() -> None:
    holder = office()
    ticket = Ticket(holder.issue(ASKER, BLOB, 0), 0)
    headers = [ticket.header(WANTED, CERTIFICATE) for _ in range(t.WINDOW)]
    for header in reversed(headers):
        assert holder.admit(header, WANTED, CERTIFICATE, SECOND) == ASKER


def test_a_request_is_admitted_once() -> None:
    holder = office()
    ticket = Ticket(holder.issue(ASKER, BLOB, 0), 0)
    first, second = ticket.header(WANTED, CERTIFICATE), ticket.header(WANTED, CERTIFICATE)
    for header in (second, first):
        holder.admit(header, WANTED, CERTIFICATE, 0)
        with pytest.raises(TicketRefused, match="made before"):
            holder.admit(header, WANTED, CERTIFICATE, 0)


def test_a_request_from_before_the_window_is_refused() -> None:
    holder = office()
    ticket = Ticket(holder.issue(ASKER, BLOB, 0), 0)
    headers = [ticket.header(WANTED, CERTIFICATE) for _ in range(t.WINDOW + 1)]
    holder.admit(headers[-1], WANTED, CERTIFICATE, 0)
    with pytest.raises(TicketRefused, match="made before"):
        holder.admit(headers[0], WANTED, CERTIFICATE, 0)
    holder.admit(headers[1], WANTED, CERTIFICATE, 0)


def test_an_expired_ticket_is_refused_and_was_not_fresh_long_before() -> None:
    holder = office()
    ticket = Ticket(holder.issue(ASKER, BLOB, 5), 5)
    holder.admit(ticket.header(WANTED, CERTIFICATE), WANTED, CERTIFICATE, t.TICKET_TTL_NS)
    with pytest.raises(TicketRefused, match="expired"):
        holder.admit(ticket.header(WANTED, CERTIFICATE), WANTED, CERTIFICATE, t.TICKET_TTL_NS + 5)
    assert ticket.fresh(5 + t.TICKET_TTL_NS // 2)
    assert not ticket.fresh(5 + t.TICKET_TTL_NS * 9 // 10)


@pytest.mark.parametrize(
    "wanted",
    [Wanted(ANOTHER, 3, 9, True), Wanted(BLOB, 2, 9, True), Wanted(BLOB, 3, 10, True), Wanted(BLOB, 3, 9, False)],
)
def test_a_request_is_good_for_what_it_names_only(wanted: Wanted) -> None:
    holder = office()
    header = Ticket(holder.issue(ASKER, BLOB, 0), 0).header(WANTED, CERTIFICATE)
    with pytest.raises(TicketRefused):
        holder.admit(header, wanted, CERTIFICATE, 0)


def test_a_ticket_is_for_one_blob() -> None:
    holder = office()
    wanted = Wanted(ANOTHER, 0, 0, False)
    with pytest.raises(TicketRefused, match="another blob"):
        holder.admit(Ticket(holder.issue(ASKER, BLOB, 0), 0).header(wanted, CERTIFICATE), wanted, CERTIFICATE, 0)


def test_a_ticket_that_somebody_saw_is_worthless() -> None:
    """Without the key, with the key of an own ticket, or sent to another server."""
    holder = office()
    seen = holder.issue(ASKER, BLOB, 0)
    own = holder.issue(OTHER, BLOB, 0)
    for key in (bytes(32), own.key):
        header = Ticket(Grant(seen.ticket, key, seen.ttl_ns), 0).header(WANTED, CERTIFICATE)
        with pytest.raises(TicketRefused, match="not by the peer"):
            holder.admit(header, WANTED, CERTIFICATE, 0)
    with pytest.raises(TicketRefused):
        holder.admit(Ticket(seen, 0).header(WANTED, b"d" * 32), WANTED, CERTIFICATE, 0)


def test_no_byte_of_a_ticket_can_be_changed() -> None:
    holder = office()
    grant = holder.issue(ASKER, BLOB, 0)
    for position in range(len(grant.ticket)):
        changed = bytearray(grant.ticket)
        changed[position] ^= 1
        header = Ticket(Grant(bytes(changed), grant.key, grant.ttl_ns), 0).header(WANTED, CERTIFICATE)
        with pytest.raises(TicketRefused, match="not issued by this node"):
            holder.admit(header, WANTED, CERTIFICATE, 0)


def test_tickets_end_with_the_run_of_the_holder() -> None:
    header = Ticket(office().issue(ASKER, BLOB, 0), 0).header(WANTED, CERTIFICATE)
    with pytest.raises(TicketRefused, match="not issued by this node"):
        office(b"t" * 32).admit(header, WANTED, CERTIFICATE, 0)


OTHER_SHAPES = [
    "",
    "nothing",
    "Bearer {1} {2} {3}",
    "{0} {1} {2}",
    "{0} {1} {2} -1",
    "{0} {1} {2} 0",
    "{0} {2} {1} {3}",
    "{0} ! {2} {3}",
    "{0} {1} {2} 99999999999999999999",
    "{0} {1} {2} ²",
]


@pytest.mark.parametrize("change", OTHER_SHAPES)
def test_headers_of_another_shape(change: str) -> None:
    holder = office()
    words = Ticket(holder.issue(ASKER, BLOB, 0), 0).header(WANTED, CERTIFICATE).split(" ")
    with pytest.raises(TicketRefused):
        holder.admit(change.format(*words), WANTED, CERTIFICATE, 0)


def test_what_is_remembered_of_tickets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t, "MAX_TICKETS_PER_PEER", 3)
    holder = office()

    def use(now_ns: int, peer: str = ASKER) -> None:
        ticket = Ticket(holder.issue(peer, BLOB, now_ns), now_ns)  # type: ignore[arg-type]
        holder.admit(ticket.header(WANTED, CERTIFICATE), WANTED, CERTIFICATE, now_ns)

    for _ in range(3):
        use(0)
    with pytest.raises(TicketRefused, match="too many"):
        use(0)
    use(0, OTHER)
    use(t.TICKET_TTL_NS)  # the others have expired


def test_the_header_is_text_that_http_can_carry() -> None:
    header = Ticket(office().issue(ASKER, BLOB, 0), 0).header(WANTED, CERTIFICATE)
    assert header.isascii()
    assert len(header) < 400
    assert len(base64.b64decode(header.split(" ")[1])) == t.TICKET_BYTES
