"""The messages of EasyRec's and TorchEasyRec's configurations, as tables of their fields, and a text parsed by protocol buffers with them.

A field is `number name type`; `!` after the number: required, `*`: repeated. An enumeration has `NAME=number` in place of fields.
Of the messages that an exported configuration has, all required fields are here, and the optional ones that it may have.
"""

from __future__ import annotations

from typing import Final

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from dssm_assets.extras.easyrec.import_settings import EASYREC, TORCH

_ADAM: Final = "3 beta1 float, 4 beta2 float"
_SAMPLERS: Final = {
    "NegativeSampler": "1! input_path string, 2! num_sample uint32, 3* attr_fields string, 4! item_id_field string, 5 attr_delimiter string, "
    "6 num_eval_sample uint32",
    "NegativeSamplerV2": "1! user_input_path string, 2! item_input_path string, 3! pos_edge_input_path string, 4! num_sample uint32, "
    "5* attr_fields string, 6! item_id_field string, 7! user_id_field string, 8 attr_delimiter string, 9 num_eval_sample uint32",
    "HardNegativeSampler": "1! user_input_path string, 2! item_input_path string, 3! hard_neg_edge_input_path string, 4! num_sample uint32, "
    "5! num_hard_sample uint32, 6* attr_fields string, 7! item_id_field string, 8! user_id_field string, 9 attr_delimiter string, "
    "10 num_eval_sample uint32",
    "HardNegativeSamplerV2": "1! user_input_path string, 2! item_input_path string, 3! pos_edge_input_path string, "
    "4! hard_neg_edge_input_path string, 5! num_sample uint32, 6! num_hard_sample uint32, 7* attr_fields string, 8! item_id_field string, "
    "9! user_id_field string, 10 attr_delimiter string, 11 num_eval_sample uint32",
    "Similarity": "COSINE=0, INNER_PRODUCT=1, EUCLID=2",
}
_SAMPLER_FIELDS: Final = (
    "101 negative_sampler NegativeSampler, 102 negative_sampler_v2 NegativeSamplerV2, 103 hard_negative_sampler HardNegativeSampler, "
    "104 hard_negative_sampler_v2 HardNegativeSamplerV2"
)
_BOTH_SEQUENCES: Final = "101 sequence_length uint32, 102 sequence_delim string, 103* sequence_fields string, 34 stub_type bool"
_TORCH_FEATURES: Final = (
    "1 id_feature IdFeature, 2 raw_feature RawFeature, 3 combo_feature ComboFeature, 4 lookup_feature LookupFeature, "
    "5 match_feature MatchFeature, 7 expr_feature ExprFeature, 8 overlap_feature OverlapFeature, 9 tokenize_feature TokenizeFeature, "
    "11 kv_dot_product KvDotProduct, 12 bool_mask_feature BoolMaskFeature"
)

_TORCH: Final = _SAMPLERS | {
    "EasyRecConfig": "1! train_input_path string, 2! eval_input_path string, 3! model_dir string, 4 train_config TrainConfig, "
    "7 data_config DataConfig, 8* feature_configs FeatureConfig, 9 model_config ModelConfig",
    "TrainConfig": "1! sparse_optimizer SparseOptimizer, 2! dense_optimizer DenseOptimizer, 3 num_steps uint32, 4 num_epochs uint32, "
    "16 mixed_precision string, 19 grad_clipping GradClipping",
    "GradClipping": "1 clipping_type string, 2 max_gradient float",
    "SparseOptimizer": "2 adagrad_optimizer FusedAdagrad, 3 adam_optimizer FusedAdam, 101 constant_learning_rate Constant",
    "DenseOptimizer": "3 adam_optimizer Adam, 4 adamw_optimizer Adam, 101 constant_learning_rate Constant",
    "FusedAdagrad": "1! lr float",
    "FusedAdam": "1! lr float, 2 beta1 float, 3 beta2 float, 4 weight_decay float",
    "Adam": "1! lr float, 2 beta1 float, 3 beta2 float, 4 weight_decay float",
    "Constant": "",
    "DataConfig": f"1 batch_size uint32, 2! dataset_type DatasetType, 5* label_fields string, 20 fg_mode FgMode, {_SAMPLER_FIELDS}",
    "DatasetType": "OdpsDataset=1, ParquetDataset=2, CsvDataset=3",
    "FgMode": "FG_NONE=1, FG_NORMAL=2, FG_DAG=3, FG_BUCKETIZE=4",
    "FeatureConfig": f"{_TORCH_FEATURES}, 6 sequence_feature SequenceFeature, 101 sequence_id_feature IdFeature, "
    "102 sequence_raw_feature RawFeature",
    "SeqFeatureConfig": _TORCH_FEATURES,
    "SequenceFeature": "1! sequence_name string, 2! sequence_length uint32, 3! sequence_delim string, 4 sequence_pk string, "
    "5* features SeqFeatureConfig",
    "Bucket": "1 key string, 2 value uint64",
    "IdFeature": "1! feature_name string, 2! expression string, 3 embedding_name string, 4! embedding_dim uint32, 5 hash_bucket_size uint64, "
    "6 num_buckets uint64, 7* vocab_list string, 8* vocab_dict Bucket, 9 value_dim uint32, 10 pooling string, 11 default_value string, "
    f"12 separator string, 13 weighted bool, 17 vocab_file string, 31 default_bucketize_value uint64, {_BOTH_SEQUENCES}",
    "RawFeature": "1! feature_name string, 2! expression string, 3 embedding_name string, 4 embedding_dim uint32, 5* boundaries float, "
    f"6 value_dim uint32, 7 normalizer string, 10 pooling string, 11 default_value string, 12 separator string, {_BOTH_SEQUENCES}",
    "ComboFeature": "1! feature_name string, 2* expression string, 3 embedding_name string, 4 embedding_dim uint32, "
    "5 hash_bucket_size uint64, 7* vocab_list string, 8* vocab_dict Bucket, 9 value_dim uint32, 10 pooling string, 11 default_value string, "
    f"12 separator string, 16 vocab_file string, 31 default_bucketize_value uint64, {_BOTH_SEQUENCES}",
    "LookupFeature": "1! feature_name string, 2! map string, 3! key string, 4 embedding_name string, 5 embedding_dim uint32, "
    "6* boundaries float, 7 hash_bucket_size uint64, 8 num_buckets uint64, 9* vocab_list string, 10* vocab_dict Bucket, 11 pooling string, "
    "12 combiner string, 13 default_value string, 14 separator string, 15 need_discrete bool, 16 need_key bool, 17 normalizer string, "
    f"19 value_dim uint32, 23 vocab_file string, 31 default_bucketize_value uint64, {_BOTH_SEQUENCES}",
    "MatchFeature": "1! feature_name string, 2! nested_map string, 3! pkey string, 4! skey string, 5 embedding_name string, "
    "6 embedding_dim uint32, 7* boundaries float, 8 hash_bucket_size uint64, 9 num_buckets uint64, 10* vocab_list string, "
    "11* vocab_dict Bucket, 12 pooling string, 13 default_value string, 14 separator string, 15 need_discrete bool, 16 show_pkey bool, "
    "17 show_skey bool, 18 normalizer string, 20 value_dim uint32, 23 vocab_file string, 31 default_bucketize_value uint64, "
    f"{_BOTH_SEQUENCES}",
    "ExprFeature": "1! feature_name string, 2! expression string, 3* variables string, 4 embedding_name string, 5 embedding_dim uint32, "
    "6* boundaries float, 7 separator string, 10 pooling string, 11 default_value string, 14 value_dim uint32, "
    + _BOTH_SEQUENCES,
    "OverlapFeature": "1! feature_name string, 2! query string, 3! title string, 4! method string, 5 embedding_name string, "
    f"6 embedding_dim uint32, 7* boundaries float, 8 normalizer string, 10 pooling string, 12 separator string, {_BOTH_SEQUENCES}",
    "TokenizeFeature": "1! feature_name string, 2! expression string, 3 embedding_name string, 4! embedding_dim uint32, "
    "6 text_normalizer TextNormalizer, 7! vocab_file string, 10 pooling string, 11 default_value string, 12 tokenizer_type string, "
    + _BOTH_SEQUENCES,
    "TextNormalizer": "1 max_length uint32, 2 stop_char_file string, 3* norm_options TextNormalizeOption",
    "TextNormalizeOption": "TEXT_LOWER2UPPER=0, TEXT_UPPER2LOWER=1, TEXT_SBC2DBC=2, TEXT_CHT2CHS=3, TEXT_FILTER=4, TEXT_SPLITCHRS=5, "
    "TEXT_REMOVE_SPACE=6",
    "KvDotProduct": "1! feature_name string, 2! query string, 3! document string, 4 embedding_name string, 5 embedding_dim uint32, "
    "6* boundaries float, 7 separator string, 8 kv_delimiter float, 9 normalizer string, 10 pooling string, 11 default_value string, "
    + _BOTH_SEQUENCES,
    "BoolMaskFeature": "1! feature_name string, 2* expression string, 3 embedding_name string, 4! embedding_dim uint32, "
    "5 hash_bucket_size uint64, 6 num_buckets uint64, 7* vocab_list string, 8* vocab_dict Bucket, 9 value_dim uint32, 10 pooling string, "
    f"11 default_value string, 12 separator string, 17 vocab_file string, 31 default_bucketize_value uint64, {_BOTH_SEQUENCES}",
    "ModelConfig": "1* feature_groups FeatureGroup, 3* losses Loss, 301 dssm DSSM",
    "FeatureGroup": "1! group_name string, 2* feature_names string, 3! group_type GroupType, 4* sequence_groups SequenceGroup, "
    "5* sequence_encoders SequenceEncoder",
    "GroupType": "DEEP=0, WIDE=1, SEQUENCE=2",
    "SequenceGroup": "1 group_name string, 2* feature_names string",
    "SequenceEncoder": "3 pooling_encoder PoolingEncoder",
    "PoolingEncoder": "1 name string, 2! input string, 3 pooling_type string",
    "Loss": "2 softmax_cross_entropy SoftmaxCrossEntropy",
    "SoftmaxCrossEntropy": "1 label_smoothing float",
    "DSSM": "1! user_tower Tower, 2! item_tower Tower, 3! output_dim int32, 4 similarity Similarity, 5 temperature float, "
    "6 in_batch_negative bool",
    "Tower": "1! input string, 2! mlp MLP",
    "MLP": "1* hidden_units uint32, 2* dropout_ratio float, 3 activation string, 4 use_bn bool, 5 bias bool, 6 use_ln bool",
}

_EASYREC: Final = _SAMPLERS | {
    "EasyRecConfig": "1 train_input_path string, 3 eval_input_path string, 5! model_dir string, 6 train_config TrainConfig, "
    "8 data_config DatasetConfig, 9* feature_configs FeatureConfig, 14! model_config EasyRecModel",
    "TrainConfig": "1* optimizer_config Optimizer, 2 gradient_clipping_by_norm float, 5 num_steps uint32",
    "Optimizer": "5 use_moving_average bool, 6 moving_average_decay float, 7 embedding_learning_rate_multiplier float, "
    "103 adam_optimizer Adam, 105 adamw_optimizer AdamW, 107 adagrad_optimizer Adagrad",
    "Adam": f"1 learning_rate LearningRate, {_ADAM}",
    "AdamW": f"1 learning_rate LearningRate, 2 weight_decay float, {_ADAM}",
    "Adagrad": "1 learning_rate LearningRate",
    "LearningRate": "1 constant_learning_rate ConstantLearningRate",
    "ConstantLearningRate": "1 learning_rate float",
    "DatasetConfig": "1 batch_size uint32, 4* label_fields string, 6 num_epochs uint32, 10! input_type InputType, 12 separator string, "
    f"16* input_fields Field, {_SAMPLER_FIELDS}",
    "InputType": "CSVInput=10, OdpsInputV2=3",
    "Field": "1! input_name string, 2! input_type FieldType",
    "FieldType": "INT32=0, INT64=1, STRING=2, FLOAT=4, DOUBLE=5, BOOL=6",
    "FeatureConfig": "1 feature_name string, 2* input_names string, 3! feature_type FeatureType, 4 embedding_name string, "
    "5 embedding_dim uint32, 6 hash_bucket_size uint64, 7 num_buckets uint64, 8* boundaries double, 9 separator string, "
    "10 kv_separator string, 12* vocab_list string, 19 combiner string, 26 sub_feature_type FeatureType, 102 max_seq_len uint32",
    "FeatureType": "IdFeature=0, RawFeature=1, TagFeature=2, ComboFeature=3, LookupFeature=4, SequenceFeature=5, ExprFeature=6",
    "EasyRecModel": "1! model_class string, 2* feature_groups FeatureGroup, 9 loss_type LossType, 16! loss_weight_strategy LossWeights, "
    "201 dssm DSSM",
    "LossWeights": "Fixed=0, Uncertainty=1, Random=2",
    "FeatureGroup": "1 group_name string, 2* feature_names string, 3 wide_deep WideOrDeep",
    "WideOrDeep": "DEEP=0, WIDE=1, WIDE_AND_DEEP=2",
    "LossType": "CLASSIFICATION=0, L2_LOSS=1, SIGMOID_L2_LOSS=2, CROSS_ENTROPY_LOSS=3, SOFTMAX_CROSS_ENTROPY=4",
    "DSSM": "1! user_tower Tower, 2! item_tower Tower, 3! l2_regularization float, 4 simi_func Similarity, 5 scale_simi bool, "
    "9 item_id string, 10! ignore_in_batch_neg_sam bool, 11 temperature float",
    "Tower": "1! id string, 2! dnn DNN",
    "DNN": "1* hidden_units uint32, 2* dropout_ratio float, 3 activation string, 4 use_bn bool",
}
_LABELS: Final = {
    "": FieldDescriptorProto.LABEL_OPTIONAL,
    "!": FieldDescriptorProto.LABEL_REQUIRED,
    "*": FieldDescriptorProto.LABEL_REPEATED,
}


def read_faults(text: str, system: str) -> list[str]:
    """Returns the required fields that a configuration lacks.

    Raises:
        text_format.ParseError: a field is unknown, or a value has another type.
    """
    parsed = GetMessageClass(_pool(system).FindMessageTypeByName("tables.EasyRecConfig"))()
    text_format.Parse(text, parsed)
    return list(parsed.FindInitializationErrors())


def _pool(system: str) -> DescriptorPool:
    tables = {TORCH: _TORCH, EASYREC: _EASYREC}[system]
    file = FileDescriptorProto(name=f"{system}.proto", package="tables", syntax="proto2")
    enums = {name for name, table in tables.items() if "=" in table}
    for name, table in tables.items():
        parts = [part for part in table.split(", ") if part]
        if name in enums:
            # A protocol buffer's values are names of the whole file, so each enumeration has a message around it.
            values = file.message_type.add(name=f"{name}Values").enum_type.add(name=name)
            for part in parts:
                word, number = part.split("=")
                values.value.add(name=word, number=int(number))
            continue
        message = file.message_type.add(name=name)
        for part in parts:
            number, field, kind = part.split()
            made = message.field.add(name=field, number=int(number.rstrip("!*")), label=_LABELS[number.lstrip("0123456789")])
            if kind in tables:
                made.type_name = f".tables.{kind}Values.{kind}" if kind in enums else f".tables.{kind}"
            else:
                made.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = DescriptorPool()
    pool.Add(file)
    return pool
