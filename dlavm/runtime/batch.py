"""One token of each of several sequences in a step: the weights are fetched once for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlavm.runtime.control import open_control
from dlavm.runtime.session import Session, StepResult
from dlavm.sim.device import DeviceError
from dlavm.support.errors import DlavmError
from dlavm.target.spec import ADDRESS_UNIT

ENTRY = "batch"


class Batch:
    """Steps over sessions that share a device. Raises DlavmError for an artifact without such an entry, and for
    sessions that differ in device or share a sequence."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        first = sessions[0]
        entry = first.artifact.manifest.entries.get(ENTRY)
        if entry is None:
            raise DlavmError(f"batch: expected an artifact with an entry {ENTRY!r}, got only "
                             f"{', '.join(first.artifact.manifest.entries)} ({first.artifact.manifest.target})")
        if any(s.device is not first.device for s in sessions) or len({s.sequence for s in sessions}) < len(sessions):
            raise DlavmError("batch: expected sessions on one device, each with a sequence of its own, got others")
        self.most = entry.most_tokens
        self._entry, self._sessions = entry, {s.sequence: s for s in sessions}
        self._control = open_control(first.device, first.artifact, entry)

    def step(self, tokens: dict[int, int]) -> StepResult:
        """Feeds a token to each sequence (by its number); logits in that order, one row each.

        Raises DlavmError for more than `most` sequences or one that is not here, for an id out of range and a full
        context, before anything runs.
        """
        if not 1 <= len(tokens) <= self.most or not tokens.keys() <= self._sessions.keys():
            raise DlavmError(f"batch: expected 1..{self.most} of the sequences {sorted(self._sessions)}, got "
                             f"{sorted(tokens)}")
        chosen = [self._sessions[sequence] for sequence in tokens]
        for session, token in zip(chosen, tokens.values(), strict=True):
            session.check_prompt([token])
        first = chosen[0]
        stride = first.artifact.manifest.sequences.stride // ADDRESS_UNIT
        columns = {"kv_lens": [s.kv_len for s in chosen], "kv_bases": [s.sequence * stride for s in chosen]}
        count = len(chosen)
        try:
            for name, column in columns.items():
                first.device.mem_write(self._entry.inputs[name].address, np.array(column, "<u4"))
            result = first.run_entry(self._control, list(tokens.values()), {"token": count, "head_rows": count})
        except DeviceError as error:
            raise DlavmError(f"batch of {count}: the device stopped: {error.code}: {error}") from error
        for session, token in zip(chosen, tokens.values(), strict=True):
            session.fed([token])
        return result
