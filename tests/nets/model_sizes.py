"""Number of trainable parameters of each registered net with 1,000 classes."""

# Computed from the papers' tables by `trainable_parameters` and `early_parameters` in
# test_registry.py. Published counts agree: torchvision's and timm's of the five ResNets and
# SE-ResNet-50, and timm's of ResNetV2-50 and ResNet-50-D, to the last digit. timm's legacy nets
# agree for SE-ResNet-18, 34, 101 and 152 (11.78, 21.96, 49.33 and 66.82 million).
#
# AlexNet at 224 px, weights + biases. conv2, conv4 and conv5 have two groups:
#   conv1 11 * 11 * 3 * 96 + 96 = 34,944        fc6 6 * 6 * 256 * 4096 + 4096 = 37,752,832
#   conv2 5 * 5 * 48 * 256 + 256 = 307,456      fc7 4096 * 4096 + 4096 = 16,781,312
#   conv3 3 * 3 * 256 * 384 + 384 = 885,120     logits 4096 * 1000 + 1000 = 4,097,000
#   conv4 3 * 3 * 192 * 384 + 384 = 663,936
#   conv5 3 * 3 * 192 * 256 + 256 = 442,624     sum 60,965,224 (as in Caffe)
# ZFNet, without groups: conv1 7 * 7 * 3 * 96 + 96 = 14,208, conv2 5 * 5 * 96 * 256 + 256 = 614,656,
#   conv3 as above, conv4 3 * 3 * 384 * 384 + 384 = 1,327,488, conv5 3 * 3 * 384 * 256 + 256
#   = 884,992, dense layers as above: sum 62,357,608.
# Batch norm instead of local response norm of 96 and 256 channels: 2 * (96 + 256) = 704 more.
# AlexNet of one tower: torchvision's count.
MODEL_SIZES = {
    "alexnet": 60_965_224,
    "alexnet_bn": 60_965_928,
    "alexnet_owt": 61_100_840,
    "zfnet": 62_357_608,
    "zfnet_bn": 62_358_312,
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
    "resnet_18d": 11_708_744,
    "resnet_34d": 21_816_904,
    "resnet_50d": 25_576_264,
    "resnet_101d": 44_568_392,
    "resnet_152d": 60_212_040,
}
