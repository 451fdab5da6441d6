"""Whatever sources do, a blob arrives if one of them is honest and alive, and nothing is asked for without need."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.blobs import transfer as tr
from sparkle_protocol.blobs.bitmap import Bitmap
from tests.unit.protocol.blob_sources import Model, Run, outline_of, steady

MB = 1 << 20


@st.composite
def models(draw: st.DrawFn, chunks: int) -> Model:
    """A source that may lie, trickle, break, or be silent from or until some time."""
    rate = draw(st.sampled_from([0.0, 1.0, 8e3, 100e3, 1e6, 20e6]))
    start, stop = draw(st.sampled_from([(0.0, 1e9), (3.0, 1e9), (0.0, 2.0)]))
    breaks = draw(st.lists(st.floats(0.1, 20.0), max_size=4))
    wrong = draw(st.sets(st.integers(0, chunks - 1), max_size=3))
    return Model(
        lambda now_s: rate if start <= now_s < stop else 0.0,
        latency_s=draw(st.sampled_from([0.0, 0.05, 0.4])),
        wrong=frozenset(wrong),
        breaks_at_s=tuple(breaks),
    )


@settings(max_examples=60)
@given(st.data())
def test_an_honest_source_is_enough(data: st.DataObject) -> None:
    chunks = data.draw(st.integers(1, 60), "chunks")
    have = Bitmap(chunks)
    for chunk in data.draw(st.sets(st.integers(0, chunks - 1)), "have"):
        have.add(chunk)
    if have.full:
        have.discard(0)
    others = data.draw(st.lists(models(chunks), max_size=4), "others")
    run = Run(outline_of(chunks), {"honest": steady(2e6), **{f"o{n}": m for n, m in enumerate(others)}}, have).go()
    assert run.finished
    assert run.core.have.full
    assert not any(effect.source == "honest" for effect in run.of(tr.DropSource) if isinstance(effect, tr.DropSource))
    liars = {f"o{n}" for n, model in enumerate(others) if model.wrong}
    accused = {
        effect.source for effect in run.of(tr.DropSource) if isinstance(effect, tr.DropSource) and effect.violation
    }
    assert accused <= liars
    assert not set(run.asked) & set(have)
    breaks = sum(len(model.breaks_at_s) + 3 for model in others)
    assert sum(run.asked.values()) <= 2 * chunks + 64 * (breaks + 1)


@settings(max_examples=60)
@given(st.data())
def test_every_transfer_ends_once(data: st.DataObject) -> None:
    """And what is asked of a source is taken back or answered: nothing is left hanging at the end."""
    chunks = data.draw(st.integers(1, 30), "chunks")
    sources = data.draw(st.lists(models(chunks), min_size=1, max_size=4), "sources")
    run = Run(outline_of(chunks), {f"s{n}": model for n, model in enumerate(sources)}, step_s=0.05).go(2000.0)
    assert len(run.of(tr.Finished)) + len(run.of(tr.GaveUp)) == 1
    assert isinstance(run.effects[-1][1], tr.Finished | tr.GaveUp)
    assert run.core.over
    assert run.core.next_deadline() is None
    assert run.core.handle(tr.Tick(), 10**15) == ()
    assert run.finished == run.core.have.full


@settings(max_examples=60)
@given(st.data())
def test_the_clock_is_never_asked_for_in_vain(data: st.DataObject) -> None:
    """After ``handle`` the next deadline lies ahead: no shell can spin."""
    chunks = data.draw(st.integers(1, 20), "chunks")
    run = Run(outline_of(chunks), {"a": data.draw(models(chunks)), "b": data.draw(models(chunks))})
    told = run.tell

    def tell(event: tr.Event) -> None:
        told(event)
        deadline = run.core.next_deadline()
        assert deadline is None or deadline > round(run.now_s * 1e9)

    run.tell = tell  # type: ignore[method-assign]
    run.go(200.0)
