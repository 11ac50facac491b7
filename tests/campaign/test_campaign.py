"""The campaign as tests: all of it with `-m campaign`, and a small share with the others."""

import json

import pytest

from campaign import frame
from campaign.frame import Tally

SEED = 1


@pytest.mark.parametrize("name", frame.classes())
def test_a_share_of_each_class_is_good(name):
    module = frame.classes()[name]
    bad = {seed: frame.one(module, seed) for seed in range(frame.share(module))}
    assert {seed: problem for seed, problem in bad.items() if problem} == {}


@pytest.mark.campaign
def test_no_trial_is_bad(record_property, tmp_path):
    campaign = frame.planned(SEED)
    frame.run(campaign)
    record = campaign.record()
    record_property("campaign", frame.table(record))  # tests/conftest.py prints it
    (tmp_path / "reliability.json").write_text(json.dumps(record))
    assert not any(tally.bad for tally in campaign.tallies)
    assert all(tally.tried for tally in campaign.tallies)


def test_the_class_that_is_furthest_behind_is_next_and_a_bad_trial_is_counted(capsys):
    tallies = [Tally("rare", 1, 10, 1.0), Tally("often", 3, 20, 1.0)]
    campaign = frame.Campaign(1, 1.0, tallies)
    jobs = []
    while job := campaign.next():
        jobs.append((job[0].name, job[1]))
        campaign.add(*job, "it fell" if job[1] == 21 else None)
    assert jobs == [("rare", 10), ("often", 20), ("often", 21), ("often", 22)]
    assert [tally.row for tally in tallies] == [("rare", 1, 1, 0), ("often", 3, 2, 1)]
    assert "often 21: it fell" in frame.table(campaign.record())
    assert frame.Campaign(1, -1.0, [Tally("late", 1, 0, 1.0)]).next() is None
