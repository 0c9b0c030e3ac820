"""Mean-field theory of wide random networks: phases, critical points and predicted profiles."""

from unmask.flow.theory.gaussian import Nonlinearity, Phi, nonlinearity
from unmask.flow.theory.phases import (
    Phase,
    chi,
    correlation_map,
    critical_sigma_w2,
    gradient_ratio,
    phase,
    variance_map,
)
from unmask.flow.theory.prediction import Profile, WeightLayer, predict, weight_layers

__all__ = [
    "Nonlinearity",
    "Phase",
    "Phi",
    "Profile",
    "WeightLayer",
    "chi",
    "correlation_map",
    "critical_sigma_w2",
    "gradient_ratio",
    "nonlinearity",
    "phase",
    "predict",
    "variance_map",
    "weight_layers",
]
