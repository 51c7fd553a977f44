"""What the active parser makes of a real line; for evidence, in both shapes of RECORD_SHAPE."""

from __future__ import annotations

from collections.abc import Iterator

from tap_forensics.cli.diagnosis import Finding, ok, warning, wrong
from tap_forensics.cli.secops_kinds import EVIDENCE, Kind, Sample
from tap_forensics.cli.terminal import many
from tap_forensics.config.settings import Settings
from tap_forensics.log import escape_unprintable
from tap_forensics.secops.connection import Secops
from tap_forensics.secops.parsers import Parsed, Parser, active_parser, run_parser
from tap_forensics.secops.samples import both_shapes, generated_in

_BY_HAND = "try a line in SecOps by hand, as step 6 of deploy/README.md says"


def check_parser(secops: Secops, kind: Kind, sample: Sample, settings: Settings) -> Iterator[Finding]:
    """Raises `SecopsFailed`."""
    parser = active_parser(secops, kind.log_type)
    if parser is None:
        words = f"{kind.log_type}: no parser is active, so SecOps makes no events of these lines"
        yield wrong("parser", words, "activate one: SecOps, Settings, SIEM Settings, Parsers")
    elif parser.code is None:
        words = f"{kind.log_type}: SecOps does not show the code of the active parser, so it was not tried"
        yield warning("parser", words, _BY_HAND)
    elif kind.log_type == EVIDENCE:
        yield from _both_shapes(secops, parser, sample, settings.forensics.record_shape)
    else:
        yield from _one_line(secops, kind, parser, sample, settings)


def _both_shapes(secops: Secops, parser: Parser, sample: Sample, current: str) -> Iterator[Finding]:
    lines = both_shapes(sample.line)
    if lines is None:
        yield warning("parser", f"{EVIDENCE}: {sample.place} has no line of this function to try")
        return
    times = [generated_in(line) for line in lines.values()]
    parsed = dict(zip(lines, run_parser(secops, EVIDENCE, parser, [*lines.values()], times), strict=True))
    for shape, result in parsed.items():
        words = f"{EVIDENCE} as {shape}: {_told(result, 'the time of `generated`')} ({_whose(parser)})"
        yield ok("parser", words) if result.complete else warning("parser", words)
    yield recommended(parsed, current)


def recommended(parsed: dict[str, Parsed], current: str) -> Finding:
    """Which shape to set, from what the parser made of each. The better one has both, then more events."""

    def rank(shape: str) -> tuple[int, ...]:
        result = parsed[shape]
        return result.complete, result.with_indicators, result.timed, result.events

    best = max(parsed, key=lambda shape: (rank(shape), shape == current))
    if not parsed[best].events:
        remedy = "ask Google's support with a line of each shape, or write a parser extension"
        return wrong("record shape", "the active parser makes no event of either shape", remedy)
    lacking = _lacking(parsed[best])
    if best != current:
        words = f"the active parser reads {best} better, but RECORD_SHAPE is {current}{lacking}"
        return wrong(
            "record shape", words, f"set RECORD_SHAPE={best}; lines that are written stay as they are"
        )
    if lacking:
        words = f"RECORD_SHAPE={current} is not worse than the other shape{lacking}"
        return warning("record shape", words, "a parser extension can add it")
    equal = all(rank(shape) == rank(best) for shape in parsed)
    why = "both shapes give the same events" if equal else "only this shape gives all"
    return ok("record shape", f"RECORD_SHAPE={current} is right: {why}")


def _lacking(result: Parsed) -> str:
    """What the events of the better shape do not have, for the end of a sentence."""
    missing = {"the time of `generated`": not result.timed, "indicators": not result.with_indicators}
    names = " and ".join(name for name, is_missing in missing.items() if is_missing)
    return f"; even so its events lack {names}" if names else ""


def _one_line(
    secops: Secops, kind: Kind, parser: Parser, sample: Sample, settings: Settings
) -> Iterator[Finding]:
    (result,) = run_parser(secops, kind.log_type, parser, [sample.line], [None])
    words = f"{kind.log_type}: {_told(result, 'a time')} ({_whose(parser)})"
    flat = kind.log_type == "PROOFPOINT_MAIL" and settings.events.shape == "flat"
    if not result.events:
        remedy = "set EVENTS_SHAPE=api" if flat else "ask Google's support with this line"
        yield wrong("parser", words, f"{remedy} ({sample.place})")
    elif not result.with_indicators:
        yield warning("parser", words, "a parser extension can add what is missing")
    else:
        yield ok("parser", words)


def _whose(parser: Parser) -> str:
    kind = "your own parser" if parser.custom else "Google's parser"
    return f"{kind}{' with your extension' if parser.extension else ''}"


def _told(result: Parsed, time: str) -> str:
    if result.error:
        return f"it fails: {escape_unprintable(result.error)}"
    events = many(result.events, "event")
    return f"{events}, {result.timed} with {time}, {result.with_indicators} with indicators"
