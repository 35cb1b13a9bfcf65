"""Earth-OneVision: pictures and questions in token ids → scores and text (layer 3: torch; no Ray, no rasterio).

torch is imported when something is computed. `earthmap.model.alignment`, whose heads are torch modules, is imported by
those who train or make class maps.
"""

from earthmap.model.card import Card, Figure, read_card, write_card
from earthmap.model.checkpoint import EMBEDDED, checkpoint_key, find_checkpoint, has_embedded, load_model, save_model
from earthmap.model.closed import Closed
from earthmap.model.config import MAX_TOKENS, PRESETS, Preset, get_preset
from earthmap.model.decoding import TokenAutomaton, over_tokens
from earthmap.model.earth_onevision import EarthOneVision, load_earth_onevision, new_earth_onevision
from earthmap.model.engine import Engine, Slot, Stem, StemLayout, dtype_policy, halving, lay_out_stem
from earthmap.model.processing import PatchGrid, patch_grid, patchify
from earthmap.model.vision import VisualFeatures, join_features
from earthmap.model.words import Words, load_words, nano_words, save_words, train_words
from earthmap.model.writing import Written

__all__ = [
    "EMBEDDED",
    "MAX_TOKENS",
    "PRESETS",
    "Card",
    "Closed",
    "EarthOneVision",
    "Engine",
    "Figure",
    "PatchGrid",
    "Preset",
    "Slot",
    "Stem",
    "StemLayout",
    "TokenAutomaton",
    "VisualFeatures",
    "Words",
    "Written",
    "checkpoint_key",
    "dtype_policy",
    "find_checkpoint",
    "get_preset",
    "halving",
    "has_embedded",
    "join_features",
    "lay_out_stem",
    "load_earth_onevision",
    "load_model",
    "load_words",
    "nano_words",
    "new_earth_onevision",
    "over_tokens",
    "patch_grid",
    "patchify",
    "read_card",
    "save_model",
    "save_words",
    "train_words",
    "write_card",
]
