"""Fit `anthropic/data/tokens.json` to recorded requests, and print the held-out errors.

    .venv/bin/python -m scripts.fit_tokens FOLDER [--write]

FOLDER has the recordings, `messages.jsonl` and `streams.jsonl`. It needs the `[tokenizer]` extra.

1. Text first: requests and answers that are nothing but text fix the weights of what is counted
   in a text. Then, with these held, all else: tools, schemas, settings, images.
2. Least relative error, no weight below zero, each sample's pull cut back by how far off it is, so
   that half a dozen odd recordings decide nothing.
3. Held out: each repository's recordings are predicted by weights that never saw that repository.
   The margins come from these errors, not from those of the fit.
4. The newer tokenizer has few recordings: one factor on the older one's weights of text, and one
   on tool definitions. It is provisional, and its margin is wider.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from llm_integrations.anthropic.tokens.tokenizers import Pieces, Tier, load_vocabulary
from scripts.token_recordings import (
    NEWER,
    OLDER,
    Recording,
    is_text,
    prompt_of,
    read_recordings,
)

Json: TypeAlias = Any  # the JSON border

TARGET: Final = Path(__file__).parent.parent / "src/llm_integrations/anthropic/data/tokens.json"
COVERED: Final = 0.92  # of the held-out samples, so that nine in ten of the next ones are
SMALL_MARGIN_TOKENS: Final = {OLDER: 3.0, NEWER: 5.0}
TEXT_KINDS: Final = {"text", "answer"}
PROVISIONAL: Final = 1.3  # the margin of the newer tokenizer is so much wider than measured
ROUNDS: Final = 30
FLOOR: Final = 12.0  # tokens: below, an error counts as it is, not as a share
# No recording has these. So many tokens for each character come nearest to what two public
# vocabularies make of the first article of the Universal Declaration in eleven languages.
UNMEASURED: Final = {"latin": 1.5, "alphabetic": 0.8, "ideographic": 1.15}
# Two recordings each, of one repository.
FEW_RECORDINGS: Final = {"document": 36.0, "task_budget": 36.0}
# The prompt before tools where `tool_choice` names one: 23 recordings of Haiku and Sonnet 4.5 in
# three repositories, 16 of Sonnet 4 in one; and the models that share their documented prompts.
NAMED_TOOL_PROMPTS: Final = {
    "claude-haiku-4-5-20251001": 597,
    "claude-sonnet-4-5-20250929": 597,
    "claude-opus-4-5-20251101": 597,
    "claude-sonnet-4-20250514": 284,
    "claude-opus-4-20250514": 284,
    "claude-opus-4-1-20250805": 284,
}
# (tokens, spread) of a tool of Anthropic's and of what one use of it adds at the server, from one
# to thirty recordings each. Its description alone: web_search 1,710, web_fetch 525, memory 1,070,
# tool_search 213 to 250, code_execution 1,297 (2025-05) to 2,100 (2026-01).
SERVER_TOOLS: Final = {
    "web_search": (8_000, 8_000),
    "web_fetch": (4_000, 4_000),
    "memory": (1_070, 100),
    "tool_search_tool_bm25": (700, 500),
    "tool_search_tool_regex": (700, 500),
    "code_execution": (4_500, 3_500),
    "advisor": (1_500, 800),
}


@dataclass(frozen=True)
class Sample:
    """One equation: columns times weights, plus what is fixed, is the truth."""

    repo: str
    kind: str
    true: int
    columns: dict[str, float]
    fixed: float = 0.0


@dataclass
class Fit:
    """Weights by column, and what they say of a sample."""

    weights: dict[str, float] = field(default_factory=dict)

    def predict(self, sample: Sample) -> float:
        """Return the estimate of a sample."""
        return sample.fixed + sum(self.weights[k] * v for k, v in sample.columns.items())


class Measurer:
    """Turns recordings into samples for one tier; each text is measured once."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self._known: dict[str, dict[str, float]] = {}

    def counts(self, texts: Iterable[str]) -> dict[str, float]:
        """Return the summed counts of some texts."""
        total: Counter[str] = Counter()
        for text in texts:
            if text not in self._known:
                self._known[text] = dict(zip(self.tier.names, self.tier.measure(text), strict=True))
            total.update(self._known[text])
        return {name: count for name, count in total.items() if name not in UNMEASURED}

    def tokens(self, texts: Iterable[str], text_weights: Mapping[str, float]) -> float:
        """Return the weighed counts of some texts."""
        return sum(text_weights[name] * n for name, n in self.counts(texts).items())


def text_samples(recordings: Iterable[Recording], measurer: Measurer) -> Iterator[Sample]:
    """Yield the samples of pure text, prompts and answers, each text once."""
    seen: set[tuple[str, ...]] = set()
    for recording in recordings:
        prompt = prompt_of(recording)
        if is_text(recording, prompt) and ("prompt", *prompt.texts) not in seen:
            seen.add(("prompt", *prompt.texts))
            parts = {name: float(prompt.parts[name]) for name in ("request", "message")}
            columns = measurer.counts(prompt.texts) | parts
            yield Sample(recording.repo, "text", recording.input_tokens, columns)
        if recording.answer is not None and ("answer", recording.answer) not in seen:
            seen.add(("answer", recording.answer))
            columns = measurer.counts([recording.answer]) | {"answer": 1.0}
            yield Sample(recording.repo, "answer", recording.output_tokens, columns)


def part_samples(
    recordings: Iterable[Recording], measurer: Measurer, text: Mapping[str, float]
) -> Iterator[Sample]:
    """Yield samples with tools, schemas, settings or images, given the weights of text.

    Prompts that are counted alike are one sample.
    """
    seen: set[tuple[int, float]] = set()
    for recording in recordings:
        prompt = prompt_of(recording)
        hidden = prompt.guess.spread or prompt.server_tools
        if is_text(recording, prompt) or hidden or recording.request.get("context_management"):
            continue
        entry = recording.entry
        prompt_tokens = None if entry is None else entry.tool_prompt_tokens
        if prompt.tool_texts and prompt_tokens is None:
            continue
        fixed = measurer.tokens(prompt.texts, text) + prompt.image_tokens
        parts = dict(prompt.parts)
        for name in ("request", "message"):
            fixed += text[name] * parts.pop(name, 0)
        if entry is not None and prompt_tokens is not None and prompt.tool_texts:
            choice = (recording.request.get("tool_choice") or {}).get("type")
            named = NAMED_TOOL_PROMPTS.get(entry.id) if choice == "tool" else None
            fixed += named or prompt_tokens[choice in {"any", "tool"}]
        calls = parts.pop("tool_use", 0) + parts.pop("tool_result", 0)
        columns: dict[str, float] = {name: float(n) for name, n in parts.items() if n}
        columns["tool_block"] = float(calls)
        columns["tool_json"] = measurer.tokens(prompt.tool_texts, text)
        columns["schema_json"] = measurer.tokens(prompt.schema_texts, text)
        kind = "image" if parts.get("image") else "tools"
        columns = {name: value for name, value in columns.items() if value}
        if (key := (recording.input_tokens, fixed + sum(columns.values()))) not in seen:
            seen.add(key)
            yield Sample(recording.repo, kind, recording.input_tokens, columns, fixed)


def fit(samples: Sequence[Sample], given: Mapping[str, float] | None = None) -> Fit:
    """Return the weights with the least relative error; those in `given` are held."""
    known = dict(given or {})
    names = sorted({name for sample in samples for name in sample.columns} - set(known))
    rows = [[sample.columns.get(name, 0.0) for name in names] for sample in samples]
    truths = [
        sample.true - sample.fixed - sum(known.get(k, 0.0) * v for k, v in sample.columns.items())
        for sample in samples
    ]
    scales = [max(float(sample.true), FLOOR) for sample in samples]
    pulls = [1.0 / scale**2 for scale in scales]
    solution = [0.0] * len(names)
    for _ in range(ROUNDS):
        solution = _least_squares(rows, truths, pulls, solution)
        for number, row in enumerate(rows):
            off = abs(truths[number] - sum(map(lambda a, b: a * b, row, solution)))
            share = max(off / scales[number], 0.01)
            pulls[number] = 1.0 / (scales[number] ** 2 * share)
    return Fit(known | dict(zip(names, solution, strict=True)))


def _least_squares(
    rows: Sequence[Sequence[float]],
    truths: Sequence[float],
    pulls: Sequence[float],
    start: Sequence[float],
) -> list[float]:
    """Return the weighted least squares, none below zero, by coordinate descent."""
    size = len(start)
    gram = [[0.0] * size for _ in range(size)]
    right = [0.0] * size
    for row, truth, pull in zip(rows, truths, pulls, strict=True):
        filled = [number for number in range(size) if row[number]]
        for i in filled:
            scaled = row[i] * pull
            right[i] += scaled * truth
            for j in filled:
                gram[i][j] += scaled * row[j]
    solution = list(start)
    for _ in range(400):
        moved = 0.0
        for i in range(size):
            if not gram[i][i]:
                continue
            rest = right[i] - sum(gram[i][j] * solution[j] for j in range(size) if j != i)
            best = max(rest / gram[i][i], 0.0)
            moved = max(moved, abs(best - solution[i]))
            solution[i] = best
        if moved < 1e-5:
            break
    return solution


@dataclass
class Errors:
    """Signed relative errors of predictions, with the truths."""

    pairs: list[tuple[float, int]] = field(default_factory=list)

    def add(self, predicted: float, true: int) -> None:
        """Add a prediction, rounded as the counter rounds."""
        self.pairs.append((round(predicted), true))

    def quantile(self, share: float) -> float:
        """Return the absolute relative error below which so many lie, in percent."""
        ordered = sorted(abs(p - t) / t for p, t in self.pairs)
        return 100 * ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1]

    def margin(self, small: float) -> float:
        """Return the share of the prediction within which `COVERED` of the truths lie.

        Asked of the larger half: the smaller ones are within a few tokens anyhow.
        """
        larger = sorted(self.pairs)[len(self.pairs) // 2 :]
        needed = sorted(0.0 if abs(p - t) <= small else abs(p - t) / p for p, t in larger)
        return needed[min(math.ceil(COVERED * len(needed)), len(needed)) - 1]

    def summary(self, margin: Mapping[str, float]) -> dict[str, float]:
        """Return what the data file keeps of them, with the share of truths in the margin."""
        inside = sum(
            abs(p - t) <= max(margin["tokens"], margin["share"] * p) for p, t in self.pairs
        )
        return {
            "samples": len(self.pairs),
            "median_percent": round(statistics.median(self._off()), 1),
            "p90_percent": round(self.quantile(0.9), 1),
            "inside_margin_percent": round(100 * inside / len(self.pairs)),
        }

    def _off(self) -> list[float]:
        return [100 * abs(p - t) / t for p, t in self.pairs]


Predicted: TypeAlias = tuple[str, float, int]
Fits: TypeAlias = tuple[Fit, Fit]


def predictions(
    text: Fit, parts: Fit, measurer: Measurer, recordings: Sequence[Recording]
) -> Iterator[Predicted]:
    """Yield (kind, predicted, true) of all samples of some recordings."""
    for sample in text_samples(recordings, measurer):
        yield sample.kind, text.predict(sample), sample.true
    for sample in part_samples(recordings, measurer, text.weights):
        if all(name in parts.weights for name in sample.columns):
            yield sample.kind, parts.predict(sample), sample.true


def fit_older(recordings: Sequence[Recording], measurer: Measurer) -> Fits:
    """Return the weights of text and of all else for the older tokenizer."""
    text = fit([*text_samples(recordings, measurer)])
    return text, fit([*part_samples(recordings, measurer, text.weights)])


def fit_newer(recordings: Sequence[Recording], measurer: Measurer, older: Fits) -> Fits:
    """Return the weights for the newer tokenizer: one factor on text, one on tool definitions.

    What a part costs by itself is taken from the older one. Fitted to the few recordings it comes
    out the same within half a token, and predicts other repositories three times worse.
    """
    fixed = {"request", "message", "answer"}
    shape = {name: w for name, w in older[0].weights.items() if name not in fixed}
    merged = [
        Sample(
            sample.repo,
            sample.kind,
            sample.true,
            {name: n for name, n in sample.columns.items() if name in fixed}
            | {"factor": sum(shape[k] * n for k, n in sample.columns.items() if k in shape)},
        )
        for sample in text_samples(recordings, measurer)
    ]
    same = {name: older[0].weights[name] for name in fixed}
    factor = fit(merged, same).weights["factor"]
    text = Fit({name: w * factor for name, w in shape.items()} | same)
    given = {name: w for name, w in older[1].weights.items() if name != "tool_json"}
    given["thinking"] = 0.0
    return text, fit([*part_samples(recordings, measurer, text.weights)], given)


def held_out(
    recordings: Sequence[Recording],
    fitted: Callable[[Sequence[Recording]], Fits],
    measurer: Measurer,
) -> dict[str, Errors]:
    """Return the errors of each kind, each repository predicted by the others."""
    errors: dict[str, Errors] = {}
    for repo in sorted({recording.repo for recording in recordings}):
        text, parts = fitted([r for r in recordings if r.repo != repo])
        theirs = [r for r in recordings if r.repo == repo]
        for kind, predicted, true in predictions(text, parts, measurer, theirs):
            errors.setdefault(kind, Errors()).add(predicted, true)
    return errors


def in_sample(recordings: Sequence[Recording], fits: Fits, measurer: Measurer) -> dict[str, Errors]:
    """Return the errors of each kind on what was fitted."""
    errors: dict[str, Errors] = {}
    for kind, predicted, true in predictions(*fits, measurer, recordings):
        errors.setdefault(kind, Errors()).add(predicted, true)
    return errors


def weights_of(fits: Fits, tier: Tier, margins: Json) -> dict[str, Json]:
    """Return what the data file has for one tokenizer and tier."""
    text, parts = fits[0].weights, dict(fits[1].weights)
    block = parts.pop("tool_block")
    counted = {name: text[name] for name in tier.names if name in text}
    counted |= {name: UNMEASURED[name] for name in tier.names if name in UNMEASURED}
    fixed = {name: text[name] for name in ("request", "message")}
    fixed |= {"tool_use": block, "tool_result": block}
    tool_json, schema_json = parts.pop("tool_json"), parts.pop("schema_json")
    return {
        "text": _rounded(counted),
        "parts": _rounded(fixed | FEW_RECORDINGS | parts),
        "tool_json": round(tool_json, 3),
        "schema_json": round(schema_json, 3),
        "margins": margins,
    }


def _rounded(weights: Mapping[str, float]) -> dict[str, float]:
    return {name: round(weight, 3) for name, weight in weights.items()}


def margins_of(errors: Mapping[str, Errors], tokenizer: str) -> dict[str, dict[str, float]]:
    """Return the margin of prompts of text, and of prompts with tools."""
    small = SMALL_MARGIN_TOKENS[tokenizer]
    wider = PROVISIONAL if tokenizer == NEWER else 1.0
    text = Errors([pair for kind in TEXT_KINDS for pair in errors[kind].pairs])
    return {
        kind: {"tokens": small, "share": round(wider * found.margin(small), 3)}
        for kind, found in (("text", text), ("tools", errors["tools"]))
    }


def fit_tier(recordings: Sequence[Recording], tier: Tier) -> dict[str, dict[str, Json]]:
    """Fit both tokenizers for one tier; return by tokenizer their weights and errors."""
    measurer = Measurer(tier)
    groups = {name: [r for r in recordings if r.tokenizer == name] for name in (OLDER, NEWER)}
    older = fit_older(groups[OLDER], measurer)

    def newer(some: Sequence[Recording]) -> Fits:
        return fit_newer(some, measurer, older)

    result = {}
    for name in (OLDER, NEWER):
        fitted = newer if name == NEWER else lambda some: fit_older(some, measurer)
        fits = fitted(groups[name])
        unseen = held_out(groups[name], fitted, measurer)
        seen = in_sample(groups[name], fits, measurer)
        margins = margins_of(unseen, name)
        result[name] = weights_of(fits, tier, margins) | {
            how: {
                kind: errors.summary(margins["text" if kind in TEXT_KINDS else "tools"])
                for kind, errors in sorted(found.items())
            }
            for how, found in (("held_out", unseen), ("in_sample", seen))
        }
    return result


def main() -> None:
    """Fit, print the errors, and write the data file if told to."""
    parser = argparse.ArgumentParser(description="Fit the weights of token estimates.")
    parser.add_argument("folder", type=Path, help="the folder of messages.jsonl and streams.jsonl")
    parser.add_argument("--write", action="store_true", help="write the data file")
    arguments = parser.parse_args()
    vocabulary = load_vocabulary()
    if vocabulary is None:
        sys.exit("the [tokenizer] extra is needed: pip install 'llm-integrations[tokenizer]'")
    recordings = [*read_recordings(arguments.folder)]
    tokenizers: dict[str, dict[str, Json]] = {OLDER: {}, NEWER: {}}
    tiers: list[Tier] = [vocabulary, Pieces()]
    for tier in tiers:
        for tokenizer, weights in fit_tier(recordings, tier).items():
            tokenizers[tokenizer][tier.name] = weights
            for how in ("held_out", "in_sample"):
                for kind, errors in weights[how].items():
                    print(f"{tier.name:10} {tokenizer} {how:9} {kind:6} {errors}")
            print(f"{tier.name:10} {tokenizer} margins {weights['margins']}")
    if arguments.write:
        data = {
            "made_at": datetime.now(tz=UTC).date().isoformat(),
            "made_by": "scripts/fit_tokens.py",
            "repositories": len({recording.repo for recording in recordings}),
            "tokenizers": tokenizers,
            "server_tools": SERVER_TOOLS,
            "named_tool_prompts": NAMED_TOOL_PROMPTS,
        }
        TARGET.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
