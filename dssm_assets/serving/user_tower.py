"""The exported user tower of a bundle, fed with one request.

Belongs here: putting feature generation, buckets and the ONNX model of one bundle together. Does not belong here: the
rows of a request (`requests.py`), how the inputs of the model are laid out (`core/serving/tower_layout.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.errors import Fault, InputError, StorageError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.serving.tower_layout import OUTPUT, TowerLayout, user_layout
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.serving.bundle import Bundle
from dssm_assets.serving.requests import Given, RequestRows


class UserTower:
    """Vectors of users from their features. Safe for any number of threads."""

    def __init__(self, rows: RequestRows, layout: TowerLayout, session: Any) -> None:
        self._rows, self._layout, self._session = rows, layout, session

    @classmethod
    def of(cls, bundle: Bundle) -> UserTower:
        """Returns the user tower of a bundle.

        Raises:
            StorageError: if its files do not fit each other or cannot be read.
        """
        import onnxruntime

        try:
            spec = TowerSpec.model_validate(bundle.read_json(BundleFile.TOWERS)["spec"])
            function = HashFunction(bundle.manifest.get("hash_function") or HashFunction.MURMUR)
            fg = bundle.read_json(BundleFile.FG)
            generator = FeatureGenerator.from_fg_json(fg, hash_function=function, read_file=bundle.read_beside)
            bucketizer = Bucketizer(
                bundle.read_parquet(BundleFile.FEATURE_CONFIG), bundle.read_parquet(BundleFile.FEATURE_COUNTS)
            )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1  # One row gives threads nothing to share.
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(
                str(bundle.path(BundleFile.USER_TOWER)), options, providers=["CPUExecutionProvider"]
            )
        except StorageError:
            raise
        except Exception as error:  # Each library has errors of its own, and any of them means an unusable tower.
            raise StorageError(f"bundle {bundle.bundle_id}: the user tower cannot be used: {error}") from error
        layout = user_layout(spec)
        asked = {given.name for given in session.get_inputs()}
        if asked != set(layout.input_names):
            got = ", ".join(sorted(asked ^ set(layout.input_names)))
            raise StorageError(f"bundle {bundle.bundle_id}: user_tower.onnx and towers.json differ in the inputs {got}")
        return cls(RequestRows(generator, bucketizer, spec), layout, session)

    def vector(self, given: Given) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
        """Returns the vector of a user, float32 [D] (of K interests [K, D]), and the names in the request that no feature reads.

        Raises:
            InputError: naming every input that cannot be used.
        """
        inputs, ignored = self._rows.of(given)
        (vectors,) = self._session.run([OUTPUT], self._layout.feed(inputs))
        vector: npt.NDArray[np.float32] = vectors[0]
        if not np.isfinite(vector).all():
            raise InputError(
                Fault("request, features", "a finite vector", "NaN or infinity", "look at extreme values of inputs")
            )
        return vector, ignored
