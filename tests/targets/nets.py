"""Small PyTorch models with one property each; their factories are the models of the tests."""

import torch
from torch import nn


class Clamped(nn.Module):
    """ReLU6 after layers, after a batch norm, shared; a hardtanh that follows no layer: the qnnpack trap in each form."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, groups=16)
        self.act = nn.ReLU6()
        self.head = nn.Linear(32, 5)
        with torch.no_grad():
            self.first.weight.mul_(20)

    def forward(self, image):
        found = self.act(self.norm(self.first(image)))
        found = self.act(self.second(found))
        found = nn.functional.hardtanh(found, 0, 4)
        return self.head(found.mean([2, 3]))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(32, 64, batch_first=True)
        self.gru = nn.GRU(64, 32, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, sequence):
        return {"score": self.head(self.gru(self.lstm(sequence)[0])[0])}


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 32)
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
        self.head = nn.Linear(32, 3)

    def forward(self, ids):
        return self.head(self.body(self.table(ids)).mean(1))


class Branch(nn.Module):
    """Control flow on a value, which scripting keeps and tracing loses."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        if x.sum() > 0:
            return self.layer(x)
        return -x


class Unscriptable(Branch):
    """Control flow that neither tracing nor scripting keeps."""

    def forward(self, x):
        if len({value for value in x.flatten().tolist() if value > 0}) > 3:
            return self.layer(x)
        return -x


class Texts(nn.Module):
    def forward(self, x):
        return {"names": "cat"}, x


def clamped():
    return Clamped().eval(), (torch.randn(1, 3, 16, 16),)


def clamped_in_training_mode():
    return Clamped(), (torch.randn(1, 3, 16, 16),)


def recurrent():
    return Recurrent().eval(), (torch.randn(1, 12, 32),)


def encoder():
    return Encoder().eval(), (torch.randint(0, 100, (1, 12)),)


def branch():
    return Branch().eval(), (torch.ones(1, 8),)


def unscriptable():
    return Unscriptable().eval(), (torch.ones(1, 8),)


def quantised_already():
    model = nn.Sequential(nn.Linear(8, 8)).eval()
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8), (torch.ones(1, 8),)


def train(prepared):
    from packager.compress import qat

    generator = torch.Generator().manual_seed(0)

    def batches():
        for _ in range(4):
            images = torch.randn(8, 3, 16, 16, generator=generator)
            yield images, (images.mean((1, 2, 3)) > 0).long()

    qat.train(prepared, batches, nn.functional.cross_entropy, epochs=3)


def train_and_fail(prepared):
    raise RuntimeError("no data on Sundays")


def token_samples():
    return {"ids": torch.randint(0, 100, (24, 12), generator=torch.Generator().manual_seed(5)).numpy()}


def samples():
    return {"image": torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(5)).numpy()}


class Residual(nn.Module):
    """A sum, a concatenation, a pooling, a sigmoid: what joins and shares ranges."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.wide = nn.Conv2d(8, 8, 1)
        self.pool = nn.MaxPool2d(2)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 4)

    def forward(self, image):
        found = self.stem(image)
        joined = torch.cat([torch.relu(found + self.deep(found)), self.wide(found)], 1)
        return torch.sigmoid(self.head(self.mean(self.pool(joined)).flatten(1)))


def residual():
    return Residual().eval(), (torch.randn(1, 3, 16, 16),)


class Upsampled(nn.Module):
    """A transposed convolution, and a GELU that has no integer form in TFLite."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.act = nn.GELU()
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, image):
        return self.last(self.act(self.up(self.down(image))))


def upsampled():
    return Upsampled().eval(), (torch.randn(1, 3, 16, 16),)


def upsampled_and_trained():
    from packager.compress import qat

    module, examples = upsampled()
    prepared = qat.prepare(module, examples)
    for _ in range(4):
        prepared(torch.randn(2, 3, 16, 16))
    return qat.finish(prepared), examples


def few_steps():
    return Recurrent().eval(), (torch.randn(1, 2, 32),)


class Pooled(nn.Module):
    """Convolutions, a pooling and linear layers: what dynamic INT8 takes a part of."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.wide = nn.Linear(512, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, image):
        return self.head(self.wide(self.pool(self.conv(image)).flatten(1)).relu())


def pooled():
    return Pooled().eval(), (torch.randn(1, 3, 16, 16),)


class Counted(nn.Module):
    """Positions counted from the ids, as RoBERTa does."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(20, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids):
        known = (ids != 1).int()
        places = torch.cumsum(known, 1).type_as(known) * known + 1
        return self.head(self.words(ids) + self.places(places.long()))


def counted():
    return Counted().eval(), (torch.randint(2, 50, (1, 8)),)


class Inverted(nn.Module):
    """MobileNetV2's block, twice: what a block gives is read by the next and by the sum behind it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.blocks = nn.ModuleList(nn.Sequential(*self.block()) for _ in range(2))
        self.head = nn.Linear(8, 4)

    @staticmethod
    def block():
        first = [nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
        middle = [nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
        return [*first, *middle, nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)]

    def forward(self, image):
        found = self.stem(image)
        for block in self.blocks:
            found = found + block(found)
        return self.head(found.mean((2, 3)))


def inverted_and_trained():
    from packager.compress import qat

    module, examples = Inverted().eval(), (torch.randn(1, 3, 16, 16),)
    prepared = qat.prepare(module, examples)
    for _ in range(4):
        prepared(torch.randn(4, 3, 16, 16))
    return qat.finish(prepared), examples


class Outlier(nn.Module):
    """A sum with one channel far out, and a norm behind it that takes it away again: as in MiniLM and DeiT."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(16, 16), nn.LayerNorm(15), nn.Linear(15, 4)
        self.register_buffer("far", torch.tensor([0.0] * 15 + [2000.0]))

    def forward(self, x):
        return self.head(self.norm((self.first(x) + self.far)[:, :15]))


def outlier():
    return Outlier().eval(), (torch.randn(1, 16),)


def outlier_samples():
    return {"x": torch.randn(24, 16, generator=torch.Generator().manual_seed(5)).numpy()}
