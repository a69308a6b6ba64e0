"""What can be set: the schema of a run's configuration, presets, overrides, and TOML in and out."""

from convnet.common.typecheck import ConfigError
from convnet.config.load import load_config, presets
from convnet.config.schema import AugmentConfig, Config, DataConfig

__all__ = ["AugmentConfig", "Config", "ConfigError", "DataConfig", "load_config", "presets"]
