"""Encoders that were made elsewhere: what a user names, how its files are read, and the backbone they become.

reference.py     what is named, and the hash of its content; imports no torch
outside.py       a timm or torchvision model and a file of its weights
huggingface.py   a folder as the Hugging Face hub has it
weights.py       a state dict onto a backbone, tensor by tensor
agreement.py     whether data looks to an encoder as what it was trained on did
"""
