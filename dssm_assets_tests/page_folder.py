"""A folder in which the commands of the pages run as written: the tiny world with the ids and columns of the demo, and a reader's files.

.dssm                                a home named `demo`, with the last two days evaluated and published
users.parquet items.parquet items.csv log/    source tables
U.parquet I.parquet T.parquet shop.parquet    vectors from elsewhere, a truth, and what is in stock
pipeline.config fg.json              a configuration of TorchEasyRec over the source tables
...                                  small files: lists of the shop, ids, a certificate, csv files of other logs
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import csv

from dssm_assets.defs.scene import today_in
from dssm_assets.steps.workspace import day_before
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAILY, DAYS, PUBLISHED, WINDOWED

_ITEMS = [row["item_id"] for row in worlds.item_rows()]
ITEM_IDS = dict(zip(_ITEMS, [1029743, 1106523, *range(1000002, 1000000 + len(_ITEMS))], strict=True))
USER_IDS = {name: number for number, name in enumerate(worlds.users(), 1)}
DAY_MS = 86_400_000
PIPELINE_CONFIG = """
data_config { batch_size: 32 negative_sampler { input_path: "i" num_sample: 16 item_id_field: "item_id" } }
train_config {
  sparse_optimizer { adagrad_optimizer { lr: 0.05 } constant_learning_rate {} }
  dense_optimizer { adam_optimizer { lr: 0.01 } constant_learning_rate {} }
  num_epochs: 10
}
feature_configs { id_feature { feature_name: "city" expression: "user:city" num_buckets: 4 embedding_dim: 4 } }
feature_configs { raw_feature { feature_name: "buys" expression: "user:buy_count_3d" boundaries: [1, 5] embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "item" expression: "item:item_id" embedding_name: "item" hash_bucket_size: 200 embedding_dim: 8 value_dim: 1 } }
feature_configs { id_feature { feature_name: "category" expression: "item:category" vocab_list: ["cat_a", "cat_b"] embedding_dim: 4 value_dim: 1 } }
feature_configs {
  sequence_feature {
    sequence_name: "bought" sequence_length: 20
    features { id_feature { feature_name: "item" expression: "item:item_id" embedding_name: "item" hash_bucket_size: 200 embedding_dim: 8 } }
    features { id_feature { feature_name: "category" expression: "item:category" vocab_list: ["cat_a", "cat_b"] embedding_dim: 4 } }
  }
}
model_config {
  feature_groups {
    group_name: "user" feature_names: ["city", "buys", "bought__item", "bought__category"]
  }
  feature_groups { group_name: "item" feature_names: ["item", "category"] }
  dssm {
    user_tower { input: "user" mlp { hidden_units: 16 } }
    item_tower { input: "item" mlp { hidden_units: 16 } }
    output_dim: 8 similarity: COSINE temperature: 0.1
  }
  losses { softmax_cross_entropy {} }
}
"""
RENAMED = {"city": "age", "category": "department", "cat_a": "GROCERY", "cat_b": "PASTRY"}
"""Names of the tiny world -> those of the demo, in configurations."""


def rename(text: str) -> str:
    for before, now in RENAMED.items():
        text = text.replace(before, now)
    return text


def _item_rows() -> list[dict[str, Any]]:
    rows = []
    for row in worlds.item_rows():
        brand = ("National", "Private")[row["stock"] % 2]
        columns = {"department": RENAMED[row["category"]], "brand": brand, "product_category": f"kind {row['stock'] % 3}"}
        rows.append({"item_id": ITEM_IDS[row["item_id"]], **columns})
    return rows


def _log_rows(shift: int) -> list[dict[str, Any]]:
    named = worlds.log_rows(range(len(DAYS)))
    ids = ((row, {"user_id": USER_IDS[row["user_id"]], "item_id": ITEM_IDS[row["item_id"]]}) for row in named)
    return [{**row, **own, "ts": row["ts"] + shift * DAY_MS} for row, own in ids]


def write_folder(folder: Path) -> None:
    """Makes the folder, the home's tables by the steps alone. Days are moved, as the demo's are: the last one is yesterday."""
    shift = (today_in(worlds.TIMEZONE) - dt.date.fromisoformat(DAYS[-1])).days - 1
    days = [day_before(ds, -shift) for ds in DAYS]
    home, config = folder / ".dssm", json.loads(rename(json.dumps(worlds.CONFIG)))
    changes = {
        "calendar": {"start": days[0], "end": days[-1]},
        "name": "demo",
        "serving": {"filters": ["department", "brand", "product_category"]},
        "storage": {"iceberg": {}},
    }
    users = [
        {"user_id": USER_IDS[row["user_id"]], "age": ("25-34", "65+")[row["city"] == "city1"]} for row in worlds.user_rows()
    ]
    for place in (home / "source", folder):
        worlds.write_rows(place / "users.parquet", users)
        worlds.write_rows(place / "items.parquet", _item_rows())
    worlds.write_rows(home / "source" / "behavior.parquet", _log_rows(shift))
    worlds.write_rows(folder / "log" / "part-0.parquet", _log_rows(shift))
    (home / "config.yaml").write_text(yaml.safe_dump(worlds.merged(config, changes), sort_keys=False), encoding="utf-8")
    loaded = load_config(home / "config.yaml", home)
    worlds.run_steps(loaded, DAILY, days)
    worlds.run_steps(loaded, [*WINDOWED, *PUBLISHED], days[-2:])
    _write_reader_s_files(folder)


def _write_reader_s_files(folder: Path) -> None:
    items = pa.Table.from_pylist(_item_rows())
    csv.write_csv(items, folder / "items.csv")
    vectors = pa.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    pq.write_table(pa.table({"user_id": [1, 2, 3], "user_tower_emb": vectors}), folder / "U.parquet")
    pq.write_table(pa.table({"item_id": [7, 8, 9], "item_tower_emb": vectors}), folder / "I.parquet")
    pq.write_table(pa.table({"user_id": [1, 2, 3], "item_id": [7, 8, 9]}), folder / "T.parquet")
    pq.write_table(pa.table({"item_id": [7, 8, 9], "in_stock": [True, True, False]}), folder / "shop.parquet")
    texts = {
        "pipeline.config": rename(PIPELINE_CONFIG).replace("buy_count_3d", "buy_count_7d"),  # `init` chooses other spans
        "fg.json": rename(json.dumps({"features": worlds.FG["features"][:2]})),
        "ids.txt": "3\n5\n",
        "blocked.txt": "1106523\n",
        "stock.txt": "\n".join(map(str, ITEM_IDS.values())),
        "ratings.csv": "User-ID;ISBN;Rating\n1;a;5\n1;b;3\n2;a;4\n",
        "orders.csv": "order_id,user_id,order_number,days_since_prior_order\n1,1,1,\n2,1,2,7.0\n",
        "order_products.csv": "order_id,product_id\n1,10\n2,11\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    make_certificate = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shop -addext subjectAltName=IP:127.0.0.1"
    command = [*make_certificate.split(), "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
