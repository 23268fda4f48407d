"""Bundles to deploy: each is a folder with model, model card and SHA256SUMS, and the gallery where there is one."""

from workbench.export.bundle import check_bundle
from workbench.export.deepstream import deepstream_config
from workbench.export.triton import triton_repository

__all__ = ["check_bundle", "deepstream_config", "triton_repository"]
