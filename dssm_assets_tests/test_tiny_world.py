"""The whole graph in Dagster, in a world with a known answer: each group buys its own items (`worlds.py`)."""

from collections import Counter

import numpy as np
import pytest

from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.steps.train_files import train_tables
from dssm_assets_tests.storage.stores import verify
from dssm_assets_tests.wide_samples import read_wide_sample
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, GROUP_SIZE, WINDOW_DAYS

EVALUATED = len(DAYS) - 1
WINDOW = range(EVALUATED - WINDOW_DAYS, EVALUATED)
CLICKS = "user_click_count_1d"


@pytest.fixture(scope="module")
def workspace(world):
    return world.workspace


def rows(workspace, table, ds=EVALUATION_DAY):
    return workspace.tables.read(workspace.need(table, ds)).to_pylist()


def test_every_list_holds_the_items_of_the_user_s_group(workspace):
    detail = rows(workspace, "hit_rate_detail")
    assert [row["user_id"] for row in detail] == sorted(worlds.users())
    for row in detail:
        assert sorted(row["topk_ids"]) == [f"{row['user_id'][0]}_{number:02d}" for number in range(GROUP_SIZE)]
        assert row["topk_scores"] == sorted(row["topk_scores"], reverse=True)


def test_warm_hit_rate_of_model_and_popularity(workspace):
    # 12 users buy 3 items each. Group a has twice as many users, so its 10 items lead the popularity list: 8 of 12 are served.
    bought = Counter(item for day in WINDOW for user in worlds.users() for item in worlds.bought(user, day))
    assert {item[0] for item, _ in bought.most_common(GROUP_SIZE)} == {"a"}
    total, wanted = rows(workspace, "total_hit_rate"), ("warm", "all", GROUP_SIZE)
    rates = {row["scorer"]: row for row in total if (row["population"], row["scope"], row["k"]) == wanted}
    model, popularity = rates["model"], rates["popularity"]
    assert (model["hits"], model["truth_count"], model["users"], model["hit_rate"]) == (36, 36, 12, 1.0)
    assert (model["ci_low"], model["ci_high"], model["user_recall"], model["user_hit_rate"]) == (1.0, 1.0, 1.0, 1.0)
    assert (popularity["hits"], popularity["hit_rate"]) == (24, pytest.approx(2 / 3))
    assert popularity["user_hit_rate"] == pytest.approx(8 / 12)


def test_the_check_says_that_the_model_beats_popularity(world):
    import dagster as dg

    check = world.instance.get_latest_asset_check_evaluation_record(
        dg.AssetCheckKey(dg.AssetKey("total_hit_rate"), "beats_popularity")
    ).event.asset_check_evaluation
    assert check.passed
    assert (
        check.description
        == f"{EVALUATION_DAY}: warm hit_rate@10 of the two-tower model is 1.0000, of popularity 0.6667: 1.50 times"
    )


def test_ground_truth_is_what_was_bought_on_the_day(workspace):
    truth = {row["user_id"]: row for row in rows(workspace, "ground_truth")}
    # a0 on day 11: numbers (2*0 + 3*11 + j) mod 10 = 3, 4, 5; b3: (6 + 33 + j) mod 10 = 9, 0, 1.
    assert truth["a0"]["gt_items"] == ["a_03", "a_04", "a_05"]
    assert truth["b3"]["gt_items"] == ["b_00", "b_01", "b_09"]
    assert all(row["gt_is_warm"] == [True] * 3 and row["is_warm_user"] for row in truth.values())


@pytest.mark.parametrize("day", [1, 5, 11])
def test_samples_have_the_features_of_the_previous_day(workspace, day):
    sampled = read_wide_sample(workspace, "sample_fg", DAYS[day]).to_pylist()
    assert {row["user_feature_date"] for row in sampled} == {DAYS[day - 1]}
    assert {row["item_feature_date"] for row in sampled} == {DAYS[day - 1]}
    clicks = {row["user_id"]: row[CLICKS] for row in sampled}
    assert clicks == {user: float(len(worlds.clicked(user, day - 1))) for user in worlds.users()}
    assert clicks != {user: float(len(worlds.clicked(user, day))) for user in worlds.users()}


def test_one_sample_by_hand(workspace):
    # b1 on day 7 buys (2 + 21 + j) mod 10 = 3, 4, 5, first b_03. On day 6 it clicked 1 + (1 + 6) mod 3 = 2 items.
    # Over days 4, 5, 6 it bought 9 items, none of category a. In those days b_03 was bought by: day 4 (12 + 2n + j) mod 10
    # = 3: b0 (j = 1), b3 no (18..20); day 5 (15 + 2n + j): none for n = 0..3 but b3 (21..23, j = 2); day 6 (18 + 2n + j):
    # b2 (22..24, j = 1) and b1 no (20..22), b3 no (24..26): 3 in all.
    (row,) = [
        row
        for row in read_wide_sample(workspace, "sample_fg", DAYS[7]).to_pylist()
        if (row["user_id"], row["item_id"], row["event"]) == ("b1", "b_03", "buy")
    ]
    assert (row[CLICKS], row["user_buy_count_3d"], row["item_buy_count_3d"]) == (2.0, 9.0, 3.0)
    assert (row["label"], row["hour"], row["weekday"], row["page"]) == (1, 0, 0, "home")
    assert row["event_time_ms"] == worlds.start_ms(7) + 9 * 60_000 + 500


def test_the_preference_lookup_counts_the_own_category(workspace):
    takes_a = {row["user_id"]: row["user_takes_a"] for row in read_wide_sample(workspace, "sample_fg", DAYS[7]).to_pylist()}
    assert (takes_a["a0"], takes_a["a7"]) == (9.0, 9.0)
    assert takes_a["b0"] in (None, 0.0)


def test_on_the_first_day_samples_have_no_features(workspace):
    sampled = read_wide_sample(workspace, "sample_fg", DAYS[0]).to_pylist()
    assert {(row["user_feature_date"], row["item_feature_date"], row[CLICKS]) for row in sampled} == {(None, None, None)}


def test_a_user_without_a_profile_has_counts_and_no_city(workspace):
    feature = {row["user_id"]: row for row in rows(workspace, "user_all_feature", DAYS[6])}
    assert (feature[worlds.NO_PROFILE]["city"], feature[worlds.NO_PROFILE]["buy_count_3d"]) == (None, 9)
    assert feature["a6"]["city"] == "city0"
    assert feature["a6"]["days_since_first_event"] == 6.0  # in Shanghai; in UTC it happened on the day before


def sample_histories(workspace):
    """Yields (user, time of the target, times of the history that its sample sees)."""
    tables = train_tables(workspace, EVALUATION_DAY)
    samples, history, users = (tables[name].to_pydict() for name in ("samples", "history", "users"))
    for user, end, time in zip(samples["user_index"], samples["history_end"], samples["event_time_ms"], strict=True):
        seen = slice(users["history_start"][user], end)
        yield users["user_id"][user], time, history["event_time_ms"][seen]


def test_the_history_of_a_sample_is_every_earlier_event(workspace):
    lengths = Counter()
    for user, time, seen in sample_histories(workspace):
        assert all(earlier < time for earlier in seen)
        lengths[user, len(seen)] += 1
    # On day d the user has bought 3 d items before, and j more on the day itself: exactly these are in its history.
    assert lengths == Counter((user, 3 * day + j) for user in worlds.users() for day in WINDOW for j in range(3))


def test_with_history_day_a_sample_sees_nothing_of_its_own_day(world, tmp_path):
    loaded = world.copy(tmp_path / "by_day", {"model": {"history": "day"}})
    worlds.run_steps(loaded, ["train_samples"], [EVALUATION_DAY])
    lengths = Counter((user, len(seen)) for user, _, seen in sample_histories(open_workspace(loaded)))
    assert lengths == Counter((user, 3 * day) for user in worlds.users() for day in WINDOW for _ in range(3))


def test_scoring_sees_every_event_before_the_evaluation_day(workspace):
    tables = train_tables(workspace, EVALUATION_DAY)
    times, users = np.array(tables["history"].column("event_time_ms")), tables["users"]
    assert times.max() < worlds.start_ms(EVALUATED)
    assert len(times) == 3 * EVALUATED * len(worlds.users())
    ends = dict(zip(users.column("user_id").to_pylist(), users.column("history_end").to_pylist(), strict=True))
    starts = dict(zip(users.column("user_id").to_pylist(), users.column("history_start").to_pylist(), strict=True))
    assert {user: ends[user] - starts[user] for user in ends} == dict.fromkeys(worlds.users(), 3 * EVALUATED)


def test_negatives_are_weighted_by_popularity(workspace):
    corpus = {row["item_id"]: row for row in rows(workspace, "negative_items")}
    bought = Counter(item for day in WINDOW for user in worlds.users() for item in worlds.bought(user, day))
    assert {item: row["count"] for item, row in corpus.items()} == dict(bought)
    assert corpus["a_00"]["weight"] == pytest.approx((bought["a_00"] + 1) ** 0.75)


def test_equal_seeds_give_equal_bytes_in_any_folder(world, tmp_path):
    again = worlds.build_all(worlds.write_world(tmp_path / "elsewhere"))
    digests = worlds.every_digest(world.workspace)
    assert len(digests) == len(worlds.DAILY) * len(DAYS) + len(worlds.WINDOWED)
    assert worlds.every_digest(again) == digests


def test_another_seed_changes_vectors_and_not_the_truth(world, tmp_path):
    loaded = world.copy(tmp_path / "seeded", {"seed": 8})
    worlds.run_steps(
        loaded, ["ground_truth", "training_config", "dssm_model", "item_vectors", "user_vectors"], [EVALUATION_DAY]
    )
    ours, theirs = worlds.every_digest(world.workspace), worlds.every_digest(open_workspace(loaded))
    differing = {key.partition("/")[0] for key in ours if ours[key] != theirs[key]}
    assert differing == {"training_config", "dssm_model", "item_vectors", "user_vectors"}


def test_every_partition_matches_its_manifest_and_its_inputs(workspace):
    digests = worlds.every_digest(workspace)
    for key, digest in digests.items():
        manifest = workspace.need(*key.split("/"))
        verify(workspace.tables.partitions, manifest)
        assert manifest.digest == digest
        assert {name: digests[name] for name in manifest.inputs} == dict(manifest.inputs), key
        assert bool(manifest.inputs) == (manifest.asset not in {"user_table", "item_table", "behavior_table"})
