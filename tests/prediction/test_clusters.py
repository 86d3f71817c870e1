"""Where workers are, and what is said if there are none."""

import pytest

from keras_unet import system as extras
from keras_unet.prediction import clusters
from keras_unet.prediction.clusters import Cluster


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None), r"dask and workers: expected one of them, .*dask=None, workers=None$"),
        (("tcp://a:1", 2), r"expected one of them, .*dask=tcp://a:1, workers=2$"),
        ((None, 0), r"workers must be at least 1\. Received: 0$"),
    ],
)
def test_one_way_is_chosen(given, message):
    with pytest.raises(ValueError, match=message):
        Cluster(*given)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no://127.0.0.1:1"])
def test_no_scheduler(address, monkeypatch):
    monkeypatch.setattr(clusters, "SECONDS", 0.5)
    with (
        pytest.raises(OSError, match=rf"^{address}: expected .*; start one by: dask") as caught,
        Cluster(address).connected(),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_no_worker(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(clusters, "SECONDS", 1)
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        address = cluster.scheduler_address
        with (
            pytest.raises(OSError, match=rf"without any for 1 seconds; .*: dask worker {address}"),
            Cluster(address).connected(),
        ):
            pass


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with (
        pytest.raises(ModuleNotFoundError, match=r'without distributed; pip install "\.\[dask\]"$'),
        Cluster(workers=1).connected(),
    ):
        pass
