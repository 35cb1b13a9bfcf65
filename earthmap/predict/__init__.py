"""Tiles and queries in, answers out (layer 3)."""

from earthmap.predict.oracle import OraclePredictor
from earthmap.predict.protocol import Picture, Predictor, TileInput
from earthmap.predict.registry import PREDICTORS, build_predictor, default_predictor, key_of
from earthmap.predict.spectral import SpectralPredictor

__all__ = [
    "PREDICTORS",
    "OraclePredictor",
    "Picture",
    "Predictor",
    "SpectralPredictor",
    "TileInput",
    "build_predictor",
    "default_predictor",
    "key_of",
]
