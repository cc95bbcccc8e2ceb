"""The pipelines that read features, texts and metadata: a seed in, an unfitted one out."""

from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

TREES = 200
ITERATIONS = 2000


def build_line(seed: int) -> Pipeline:
    """Build a strongly penalised logistic regression of many features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=ITERATIONS))


def build_embedding_line(seed: int) -> Pipeline:
    """Build a logistic regression of a few hundred features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=ITERATIONS))


def build_few_line(seed: int) -> Pipeline:
    """Build a logistic regression of a handful of features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=ITERATIONS))


def build_component_line(seed: int) -> Pipeline:
    """Build a logistic regression of the thirty largest principal components."""
    components = PCA(30, svd_solver="randomized", random_state=seed)
    line = LogisticRegression(C=0.01, max_iter=ITERATIONS)
    return make_pipeline(StandardScaler(), components, StandardScaler(), line)


def build_kernel(seed: int) -> Pipeline:
    """Build a support vector machine with a Gaussian kernel."""
    return make_pipeline(StandardScaler(), SVC(C=1.0))


def build_trees(seed: int) -> Pipeline:
    """Build extremely randomised trees."""
    trees = ExtraTreesClassifier(TREES, min_samples_leaf=3, random_state=seed)
    return make_pipeline(StandardScaler(), trees)


def build_words(seed: int) -> Pipeline:
    """Build a logistic regression of words and pairs of words."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    return make_pipeline(words, LogisticRegression(C=1.0, max_iter=ITERATIONS))


def build_letters(seed: int) -> Pipeline:
    """Build a logistic regression of runs of two to five letters."""
    letters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=3, max_features=30_000
    )
    return make_pipeline(letters, LogisticRegression(C=1.0, max_iter=ITERATIONS))
