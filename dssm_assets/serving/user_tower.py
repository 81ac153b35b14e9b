"""The exported user tower of a bundle, run on one request: feature generation, buckets, ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
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
from dssm_assets.serving.request_encoder import RequestEncoder, UserInputs
from dssm_assets.serving.stored_users import StoredUsers
from dssm_assets.storage.onnx_session import open_session

Vector = npt.NDArray[np.float32]


class UserTower:
    """Computes vectors of users from their features. Safe for any number of threads."""

    def __init__(self, encoder: RequestEncoder, layout: TowerLayout, session: Any, stored: StoredUsers | None) -> None:
        self.encoder, self._layout, self._session, self.stored = encoder, layout, session, stored

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> UserTower:
        """Returns the user tower of a bundle.

        Raises:
            StorageError: its files do not match each other or cannot be read.
        """
        try:
            spec = TowerSpec.model_validate(bundle.read_json(BundleFile.TOWERS)["spec"])
            function = HashFunction(bundle.manifest.get("hash_function") or HashFunction.MURMUR)
            fg = bundle.read_json(BundleFile.FG)
            generator = FeatureGenerator.from_fg_json(fg, hash_function=function, read_file=bundle.read_bytes)
            bucketizer = Bucketizer(
                bundle.read_parquet(BundleFile.FEATURE_CONFIG), bundle.read_parquet(BundleFile.FEATURE_COUNTS)
            )
            session = open_session(bundle.path(BundleFile.USER_TOWER), num_threads=1)  # One row is too little work to split.
        except StorageError:
            raise
        except Exception as error:  # Each library raises its own errors; any of them means an unusable tower.
            message = f"bundle {bundle.bundle_id}: the user tower cannot be loaded ({error}). To fix: publish the bundle again"
            raise StorageError(message) from error
        layout = user_layout(spec)
        model_inputs = {model_input.name for model_input in session.get_inputs()}
        if model_inputs != set(layout.input_names):
            got = ", ".join(sorted(model_inputs ^ set(layout.input_names)))
            message = f"bundle {bundle.bundle_id}: user_tower.onnx and towers.json differ in the inputs {got}"
            raise StorageError(f"{message}. To fix: publish the bundle again")
        stored = StoredUsers(bundle, spec) if bundle.has_file(BundleFile.USER_INPUTS) else None
        return cls(RequestEncoder(generator, bucketizer, spec, stored), layout, session, stored)

    @property
    def reads_history(self) -> bool:
        """Whether vectors depend on the history."""
        return self.encoder.has_history

    def compute_vectors(self, inputs: Sequence[UserInputs]) -> list[Vector | Exception]:
        """Returns the vector of each user, float32 [D] ([K, D] for K interests).

        In its place the error of a user some of whose inputs cannot be used: it names them all. Features are encoded together.
        """
        computed: list[Vector | Exception] = []
        for one in self.encoder.encode_each(inputs):
            if isinstance(one, Exception):
                computed.append(one)
                continue
            # Row by row: a matrix product would round one row differently from the same row among others.
            (vectors,) = self._session.run([OUTPUT], self._layout.feed(one))
            vector: Vector = vectors[0]
            if np.isfinite(vector).all():
                computed.append(vector)
            else:
                remedy = "look for extreme values among the inputs"
                computed.append(InputError(Fault("request, features", "a finite vector", "NaN or infinity", remedy)))
        return computed
