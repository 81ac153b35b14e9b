"""Small configurations of both systems, written for these tests; the tests read them with a field per line, to leave each of them out."""

from __future__ import annotations

import re
from typing import Final


def _split(text: str) -> str:
    """Returns a text with a line for each field, and for each sign that closes a message."""
    return re.sub(r"\s*(\}|\w+(?=: | \{))", r"\n\1", text)


EASYREC_DSSM: Final = _split("""
train_input_path: "oss://train"
model_dir: "ckpt"
train_config {
  optimizer_config {
    adam_optimizer {
      learning_rate {
        exponential_decay_learning_rate {
          initial_learning_rate: 0.004 decay_steps: 1000 decay_factor: 0.5 burnin_steps: 200 min_learning_rate: 0.0001
        }
      }
      beta1: 0.8
    }
    embedding_learning_rate_multiplier: 5 use_moving_average: true moving_average_decay: 0.99
  }
  gradient_clipping_by_norm: 2.5 num_steps: 2000 save_checkpoints_steps: 100
}
eval_config { metrics_set { recall_at_topk { topk: 10 } } }
data_config {
  batch_size: 512 num_epochs: 3 label_fields: 'clk' sample_weight: 'w' input_type: CSVInput
  input_fields { input_name: 'clk' input_type: INT32 }
  negative_sampler_v2 {
    user_input_path: 'u' item_input_path: 'i' pos_edge_input_path: 'e' num_sample: 64 num_eval_sample: 128 attr_fields: 'sku'
    item_id_field: 'sku' user_id_field: 'uid' attr_delimiter: "\\x02"
  }
}
feature_configs { input_names: 'uid' feature_type: IdFeature hash_bucket_size: 1000 embedding_dim: 8 }
feature_configs {
  input_names: 'tags' feature_type: TagFeature separator: ',' kv_separator: ':' hash_bucket_size: 50 embedding_dim: 4
  combiner: 'mean'
}
feature_configs {
  feature_name: 'years' input_names: 'age' feature_type: RawFeature min_val: 10 max_val: 60 boundaries: [0.25, 0.5]
  embedding_dim: 4
}
feature_configs { input_names: 'sku' feature_type: IdFeature embedding_name: 'sku' hash_bucket_size: 2000 embedding_dim: 16 }
feature_configs {
  input_names: 'brand' feature_type: IdFeature vocab_list: ['acme', 'zoom'] embedding_dim: 4 shared_names: 'maker'
}
feature_configs {
  feature_name: 'sku_brand' input_names: ['sku', 'brand'] feature_type: ComboFeature combo_join_sep: '_' hash_bucket_size: 500
  embedding_dim: 4
}
feature_configs {
  input_names: 'bought' feature_type: SequenceFeature embedding_name: 'sku' hash_bucket_size: 2000 embedding_dim: 16
  separator: ';' max_seq_len: 30
}
feature_configs { input_names: 'brands' feature_type: SequenceFeature num_buckets: 9 embedding_dim: 4 }
feature_configs { input_names: 'unused' feature_type: IdFeature num_buckets: 5 embedding_dim: 4 }
feature_configs { input_names: 'blob' feature_type: PassThroughFeature }
model_config {
  model_class: "DSSM"
  feature_groups {
    group_name: 'user' feature_names: 'uid' feature_names: 'tags' feature_names: 'years' feature_names: 'bought'
    wide_deep: WIDE sequence_features { group_name: 'seq' seq_att_map { key: 'brand' hist_seq: 'brands' } }
  }
  feature_groups {
    group_name: 'item' feature_names: 'sku' feature_names: 'brand' feature_names: 'maker' feature_names: 'sku_brand'
  }
  feature_groups { group_name: 'other' feature_names: 'unused' }
  dssm {
    user_tower { id: 'uid' dnn { hidden_units: [64, 16] dropout_ratio: [0.2, 0.2] use_bn: false } }
    item_tower { id: 'sku' dnn { hidden_units: [32, 16] activation: 'tf.nn.selu' } } simi_func: COSINE temperature: 0.05
    scale_simi: false item_id: 'sku' ignore_in_batch_neg_sam: true l2_regularization: 1e-6 hist_seq_masks: 'bought'
  }
  loss_type: SOFTMAX_CROSS_ENTROPY embedding_regularization: 5e-5
}
""")

TORCH_DSSM: Final = _split("""
train_input_path: "train/*.parquet"
train_config {
  sparse_optimizer { adagrad_optimizer { lr: 0.02 initial_accumulator_value: 0.1 } constant_learning_rate {} }
  dense_optimizer {
    adamw_optimizer { lr: 0.003 weight_decay: 0.01 }
    exponential_decay_learning_rate { decay_size: 100 decay_factor: 0.9 min_learning_rate: 0.0003 }
  }
  num_epochs: 4 mixed_precision: "BF16" grad_clipping { clipping_type: "norm" max_gradient: 3.0 }
}
data_config {
  batch_size: 256 dataset_type: ParquetDataset fg_mode: FG_DAG label_fields: "clk"
  hard_negative_sampler {
    hard_neg_edge_input_path: "edges" num_sample: 32 num_hard_sample: 8 item_id_field: "sku" user_id_field: "uid"
  }
}
feature_configs {
  id_feature {
    feature_name: "city" expression: "user:city" default_value: "none" vocab_list: ["rome", "oslo"] embedding_dim: 4
    value_dim: 1 init_fn: "nn.init.zeros_"
  }
}
feature_configs {
  id_feature {
    feature_name: "tags" expression: "user:tags" separator: "," weighted: true hash_bucket_size: 50 embedding_dim: 4
    pooling: "mean"
  }
}
feature_configs {
  raw_feature { feature_name: "age" expression: "user:age" normalizer: "method=log10" boundaries: [1, 2] embedding_dim: 4 }
}
feature_configs {
  lookup_feature { feature_name: "likes" map: "user:likes" key: "const:shoes" combiner: "max" embedding_dim: 4 }
}
feature_configs {
  id_feature {
    feature_name: "item_id" expression: "item:sku" embedding_name: "sku" hash_bucket_size: 2000 embedding_dim: 16 value_dim: 1
  }
}
feature_configs { custom_feature { feature_name: "odd" operator_name: "Odd" } }
feature_configs {
  sequence_feature {
    sequence_name: "clicks" sequence_length: 20 sequence_delim: "|"
    features {
      id_feature { feature_name: "sku" expression: "item:sku" embedding_name: "sku" hash_bucket_size: 2000 embedding_dim: 16 }
    }
    features { id_feature { feature_name: "brand" expression: "user:clicks__brand" num_buckets: 9 embedding_dim: 4 } }
    features { raw_feature { feature_name: "price" expression: "item:price" embedding_dim: 4 } }
  }
}
model_config {
  feature_groups {
    group_name: "u" feature_names: "city" feature_names: "tags" feature_names: "age" feature_names: "likes"
    feature_names: "odd" sequence_groups { group_name: "clicks" feature_names: "clicks__sku" feature_names: "clicks__brand" }
    sequence_encoders { pooling_encoder { input: "clicks" pooling_type: "sum" } }
  }
  feature_groups { group_name: "i" feature_names: "item_id" embedding_name_suffix: "_i" }
  dssm {
    user_tower { input: "u" mlp { hidden_units: [64] dropout_ratio: 0.3 use_ln: true } }
    item_tower { input: "i" mlp { hidden_units: [64] bias: false } } output_dim: 24 similarity: COSINE temperature: 0.1
    in_batch_negative: true
  }
  metrics { recall_at_k { top_k: 5 } } losses { softmax_cross_entropy {} }
}
""")

EASYREC_MIND: Final = _split("""
data_config { batch_size: 512 num_epochs: 2 }
feature_configs { input_names: 'sku' hash_bucket_size: 2000 embedding_dim: 16 }
feature_configs { input_names: 'uid' hash_bucket_size: 2000 embedding_dim: 16 }
feature_configs { input_names: 'bought' feature_type: SequenceFeature hash_bucket_size: 2000 embedding_dim: 16 }
model_config {
  model_class: 'MIND' feature_groups { group_name: 'hist' feature_names: 'bought' }
  feature_groups { group_name: 'user' feature_names: 'uid' } feature_groups { group_name: 'item' feature_names: 'sku' }
  mind {
    item_dnn { hidden_units: [64, 16] } user_dnn { hidden_units: [64, 8] }
    capsule_config { max_k: 3 max_seq_len: 40 high_dim: 16 } simi_pow: 20 item_id: 'sku'
  }
}
""")

TORCH_MIND: Final = _split("""
train_config {
  sparse_optimizer { adagrad_optimizer { lr: 0.02 } constant_learning_rate {} }
  dense_optimizer { adam_optimizer { lr: 0.003 } constant_learning_rate {} } num_epochs: 2
}
data_config {
  batch_size: 256 label_fields: "clk"
  negative_sampler {
    input_path: "items" num_sample: 32 attr_fields: "sku" attr_fields: "maker_id" attr_fields: "cost" item_id_field: "sku"
  }
}
feature_configs { id_feature { feature_name: "city" expression: "user:city" num_buckets: 9 embedding_dim: 4 } }
feature_configs { id_feature { feature_name: "sku" expression: "item:sku" num_buckets: 2000 embedding_dim: 16 } }
feature_configs { id_feature { feature_name: "maker_id" expression: "item:maker_id" num_buckets: 90 embedding_dim: 8 } }
feature_configs { raw_feature { feature_name: "cost" expression: "item:cost" boundaries: [1, 2] embedding_dim: 4 } }
feature_configs {
  sequence_id_feature {
    feature_name: "seen_a" expression: "user:seen__sku" sequence_length: 20 sequence_delim: "|" num_buckets: 2000
    embedding_dim: 16
  }
}
feature_configs {
  sequence_id_feature {
    feature_name: "seen_b" expression: "user:makers_seen" sequence_length: 15 sequence_delim: "|" num_buckets: 90
    embedding_dim: 8
  }
}
model_config {
  feature_groups { group_name: "u" feature_names: "city" group_type: DEEP }
  feature_groups { group_name: "i" feature_names: "sku" feature_names: "maker_id" feature_names: "cost" group_type: DEEP }
  feature_groups { group_name: "past" feature_names: "seen_a" feature_names: "seen_b" group_type: SEQUENCE }
  mind {
    user_tower {
      input: "u" history_input: "past" user_mlp { hidden_units: [32] } hist_seq_mlp { hidden_units: [32] bias: false }
      capsule_config { max_k: 4 max_seq_len: 20 high_dim: 16 } concat_mlp { hidden_units: [32] }
    }
    item_tower { input: "i" mlp { hidden_units: [32] dropout_ratio: 0.2 } } output_dim: 16 simi_pow: 20 temperature: 0.05
  }
  losses { softmax_cross_entropy {} }
}
""")

UNKNOWN_SEQUENCES: Final = TORCH_MIND.replace("seen__sku", "first").replace("makers_seen", "second")
"""A MIND whose sequences no name joins to a column of an item."""
