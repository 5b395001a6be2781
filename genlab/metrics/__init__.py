"""Measures of a trained model, and the metadata that makes two measures comparable.

Public: measures of two sets of features, of predicted classes and of densities, as functions of tensors; the features;
and the ledger. What training and `genlab evaluate` do with them (:mod:`genlab.metrics.quality`) may change.
"""

from genlab.metrics.features import ClassifierFeatures, Description, FeatureExtractor, describe_all
from genlab.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from genlab.metrics.inception import InceptionFeatures
from genlab.metrics.inception_score import inception_style_score
from genlab.metrics.kernel import kernel_distance
from genlab.metrics.ledger import Entry, Estimate, Source, as_json, entries_from, entries_of_samples, format_table
from genlab.metrics.manifold import ManifoldScores, manifold_scores, precision_and_recall
from genlab.metrics.modes import class_histogram, histogram_divergence, modes_covered
from genlab.metrics.novelty import Auroc, auroc
from genlab.metrics.parzen import ParzenEstimate, parzen_estimate

__all__ = [
    "Auroc",
    "ClassifierFeatures",
    "Description",
    "Entry",
    "Estimate",
    "FeatureExtractor",
    "Gaussian",
    "InceptionFeatures",
    "ManifoldScores",
    "ParzenEstimate",
    "Source",
    "as_json",
    "auroc",
    "class_histogram",
    "describe_all",
    "entries_from",
    "entries_of_samples",
    "fit_gaussian",
    "format_table",
    "frechet_distance",
    "histogram_divergence",
    "inception_style_score",
    "kernel_distance",
    "manifold_scores",
    "modes_covered",
    "parzen_estimate",
    "precision_and_recall",
]
