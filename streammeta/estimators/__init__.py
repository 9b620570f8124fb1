"""The default model as River estimators: whatever takes one of River's takes these.

>>> from river import evaluate, metrics, preprocessing
>>> from river.datasets import synth
>>> from streammeta import MetaClassifier
>>> model = preprocessing.StandardScaler() | MetaClassifier()
>>> metric = evaluate.progressive_val_score(synth.SEA(seed=1).take(300), model, metrics.Accuracy())
>>> metric.get() > 0.85
True
"""

from streammeta.estimators.classifier import MetaClassifier
from streammeta.estimators.regressor import MetaRegressor

__all__ = ["MetaClassifier", "MetaRegressor"]
