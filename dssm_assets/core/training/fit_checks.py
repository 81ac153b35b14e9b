"""What must agree before towers are fitted: the data, the specification and the two sections.

Belongs here: faults of their combination. Does not belong here: bounds of single keys (the sections), faults of tables
(`train_data`, `sample_checks`).
"""

from __future__ import annotations

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.tower_spec import TowerSpec, spec_faults, tower_spec
from dssm_assets.core.training.history_start import start_faults
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training_config import Training


def check_fit(data: TrainData, spec: TowerSpec, model: Model, training: Training) -> None:
    """Checks that towers of this specification can be fitted to the data under these sections.

    Raises:
        ConfigError: naming everything that disagrees.
    """
    wanted = tower_spec(spec.features, model)
    faults = spec_faults(wanted, spec, "towers against the model section", "make the specification from this model section")
    faults += spec_faults(spec, data.spec, "training data", "open the data with the specification of the towers")
    if not model.in_batch and model.num_sample == 0:
        got = "in_batch off and num_sample 0"
        faults.append(Fault("model", "negatives: in_batch or num_sample", got, "switch one of them on"))
    if training.history_start is not None:
        faults += start_faults(spec, training.history_start)
    if model.held_embedding is not None and training.history_start is None:
        expected = "training.history_start, the codes that it holds"
        faults.append(Fault("model.held_embedding", expected, "none", "set it, or unset held_embedding"))
    if model.prior and not training.validation_days:
        got = "none: validation_days is 0"
        faults.append(Fault("model.prior", "validation days on which it is chosen", got, "set training.validation_days"))
    if training.validation_days >= data.num_days:
        got = f"{training.validation_days} of {data.num_days} days with samples"
        expected = "days before them that are trained on"
        faults.append(Fault("training.validation_days", expected, got, "lengthen the window or set it lower"))
    if faults:
        raise ConfigError(faults)
