"""When a chore pauses."""

from __future__ import annotations

from kabench_agent.turns import STEP_NS, Steps


async def test_steps_pause_where_one_was_long_enough_and_count_anew_from_the_pause_on() -> None:
    now_ns, pauses = 1_000, 0

    async def pause() -> None:
        nonlocal now_ns, pauses
        pauses += 1
        now_ns += 2_000_000  # the pause itself is no work

    step = Steps(pause, lambda: now_ns)
    seen = []
    for took_ns in (0, STEP_NS // 2, STEP_NS // 2 - 1, 1, STEP_NS - 1, 1, 3 * STEP_NS):
        now_ns += took_ns
        await step()
        seen.append(pauses)
    assert seen == [0, 0, 0, 1, 1, 2, 3]
