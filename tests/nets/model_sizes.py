"""Trainable parameters of every registered net with 1,000 classes."""

# Made by the formula of test_registry.py from the papers' tables. As published elsewhere: the
# five ResNets and SE-ResNet-50 by torchvision and timm to the last digit, ResNetV2-50 by timm;
# SE-ResNet-18, 34, 101 and 152 (11.78, 21.96, 49.33 and 66.82 million) by timm's legacy nets.
MODEL_SIZES = {
    "resnet_18": 11_689_512,
    "resnet_34": 21_797_672,
    "resnet_50": 25_557_032,
    "resnet_101": 44_549_160,
    "resnet_152": 60_192_808,
    "resnetv2_18": 11_687_720,
    "resnetv2_34": 21_795_880,
    "resnetv2_50": 25_549_352,
    "resnetv2_101": 44_541_480,
    "resnetv2_152": 60_185_128,
    "resnetv2_200": 64_666_152,
    "resnetse_18": 11_778_592,
    "resnetse_34": 21_958_868,
    "resnetse_50": 28_088_024,
    "resnetse_101": 49_326_872,
    "resnetse_152": 66_821_848,
}
