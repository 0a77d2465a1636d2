"""Installation of speechbrain-ssl.

The pins are not decoration. torchaudio 2.11 is the last one on the package
index, declares no torch requirement at all, and refuses to be imported beside
a torch that was built for another CUDA; torch 2.11 to 2.14 are the ones it was
seen to work with. speechbrain 1.1.0 has a SpeedPerturb that is two orders of
magnitude slower and a fetching code that newer hub clients reject.
"""

from setuptools import find_packages, setup

# torch's exporter writes ONNX through onnxscript; onnxruntime runs it.
ONNX = ["onnx>=1.18,<2", "onnxruntime>=1.22,<2", "onnxscript>=0.5,<1"]

setup(
    name="speechbrain_ssl",
    version="0.1.0",
    description="Speaker verification without labels, on SpeechBrain",
    license="Apache-2.0",
    packages=find_packages(include=["speechbrain_ssl", "speechbrain_ssl.*"]),
    python_requires=">=3.10",
    install_requires=[
        "speechbrain>=1.1.2,<1.2",
        "torch>=2.11,<2.15",
        "torchaudio>=2.11,<2.12",
        "hyperpyyaml>=1.2.3",
        "huggingface_hub>=1.0,<3",
        "safetensors>=0.5",
        "numpy>=1.26,<3",
        "scipy",
        "pandas>=2.0",
        "scikit-learn>=1.3",
        "soundfile>=0.12.1",
        "matplotlib>=3.7",
        "tqdm",
    ],
    extras_require={
        "onnx": ONNX,
        "parquet": ["pyarrow>=15"],
        "dev": ["pytest>=8", "ruff==0.17.5", *ONNX],
    },
    entry_points={
        "console_scripts": ["speechbrain-ssl=speechbrain_ssl.cli.main:main"]
    },
)
