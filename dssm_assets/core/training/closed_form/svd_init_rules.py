"""Which towers can begin at codes (`svd_init.py`): the rules of `training.svd_init`, which need no data and no torch."""

from __future__ import annotations

from typing import Final

from dssm_assets.core.config.training import SvdInit
from dssm_assets.core.errors import Fault
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec

_REMEDY: Final = "name a shared embedding, or unset training.svd_init"


def svd_init_faults(spec: TowerSpec, section: SvdInit) -> list[Fault]:
    """Returns what keeps towers of this specification from beginning at codes."""
    where, faults = "training.svd_init", []
    if len(find_coded_features(spec, section)) < 2:
        shared = sorted(
            {f.embedding_name for f in spec.sequences} & {f.embedding_name for f in spec.features_of(TowerSide.ITEM)}
        )
        expected = "an embedding that the history, in a pooling without attention, shares with a single-valued item feature"
        got = f"{section.embedding}; shared: {', '.join(shared) or 'none'}"
        faults.append(Fault(f"{where}.embedding", expected, got, _REMEDY))
    faults += _group_faults(spec, section)
    if spec.frozen_embedding is not None:
        return faults + _frozen_faults(spec, section)
    shared_names = {f.embedding_name for f in spec.sequences}
    width = sum(
        {
            f.embedding_name: f.embedding_dim for f in spec.features_of(TowerSide.ITEM) if f.embedding_name in shared_names
        }.values()
    )
    if spec.output_dim < width:
        expected = f"model.output_dim of at least {width}, an output for every column of the shared embeddings"
        faults.append(Fault(where, expected, str(spec.output_dim), "widen the vectors or narrow the embeddings"))
    if not spec.skip:
        expected = "model.skip, a residual connection that starts as the same map in both towers"
        faults.append(Fault(where, expected, "skip is off", "set model.skip"))
    return faults


def _frozen_faults(spec: TowerSpec, section: SvdInit) -> list[Fault]:
    """Returns what keeps codes from being frozen."""
    where, faults = "training.svd_init", []
    if section.embedding != spec.frozen_embedding:
        remedy = "set both to the same embedding"
        expected = f"{spec.frozen_embedding}, the embedding of model.frozen_embedding"
        faults.append(Fault(f"{where}.embedding", expected, section.embedding, remedy))
    if section.popularity:
        remedy = "set it to 0 and leave popularity to the towers or to model.prior"
        faults.append(Fault(f"{where}.popularity", "0 with model.frozen_embedding", str(section.popularity), remedy))
    return faults


def _group_faults(spec: TowerSpec, section: SvdInit) -> list[Fault]:
    """Returns what keeps groups of items from having codes."""
    where, faults = "training.svd_init.group_by", []
    if section.group_by and spec.frozen_embedding is None:
        expected = "model.frozen_embedding: codes that training changes are not those of the groups any more"
        faults.append(Fault(where, expected, "none", "set it, or remove group_by"))
    known = [f.name for f in spec.features_of(TowerSide.ITEM) if not f.is_multi and f.embedding_name != section.embedding]
    unknown = [name for name in section.group_by if name not in known]
    if unknown:
        expected = f"single-valued item features: {', '.join(known)}"
        faults.append(Fault(where, expected, ", ".join(unknown), "name such features"))
    return faults


def find_coded_features(spec: TowerSpec, section: SvdInit) -> list[TowerFeature]:
    """Returns the embedding's sub-feature, as its first pooling reads it, and its item feature, as far as they exist."""
    sequence = [f for f in spec.pooled_features if f.embedding_name == section.embedding]
    item = [f for f in spec.features_of(TowerSide.ITEM) if f.embedding_name == section.embedding and not f.is_multi]
    return [*sequence[:1], *item[:1]]
