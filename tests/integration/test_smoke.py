import numpy as np
from modelhost.v1 import model_service_pb2, prediction_service_pb2, tensor_pb2


def test_load_predict_unload(models, stubs, scope):
    load = model_service_pb2.LoadModelRequest(scope=scope, model="half", source=str(models / "half_plus_two"))
    assert stubs.models.LoadModel(load).version.version == 1
    x = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[3], raw=np.arange(3, dtype="<f4").tobytes())
    request = prediction_service_pb2.PredictRequest(scope=scope, model="half", inputs={"x": x})
    answer = stubs.predictions.Predict(request)
    assert np.frombuffer(answer.outputs["y"].raw, "<f4").tolist() == [2.0, 2.5, 3.0]
    unload = model_service_pb2.UnloadModelRequest(scope=scope, model="half", all_versions=True)
    assert list(stubs.models.UnloadModel(unload).versions) == [1]
