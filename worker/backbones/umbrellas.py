"""What words for many kinds of things hold of ImageNet's 1000 classes. No torch.

WordNet's tree above the classes is not at hand, and their definitions name it only by chance: of 59 birds, 12 are
called a bird there. But the classes stand in an order of the tree: all animals first, by their groups, so a group is a
few ranges of numbers. Where the tree is scattered, as vehicles are over the alphabet of things, the classes are listed
one by one, and some may be missed: every count is one of "at least".

Numbers are those of the label set's order; a test holds them against the names.
"""

from collections.abc import Mapping

# First and last class, both included; one number is a range of its own.
Ranges = tuple[tuple[int, int] | int, ...]

DOGS: Ranges = ((151, 268),)
CATS: Ranges = ((281, 285),)
PRIMATES: Ranges = ((365, 384),)
APES: Ranges = ((365, 369),)
MONKEYS: Ranges = ((370, 382),)
BEETLES: Ranges = ((300, 307),)
BUTTERFLIES: Ranges = ((321, 326),)
INSECTS: Ranges = ((300, 326),)
FISH: Ranges = ((0, 6), (389, 397))
SHARKS: Ranges = ((2, 4),)
BIRDS: Ranges = ((7, 24), (80, 100), (127, 146))
OWLS: Ranges = (24,)
SALAMANDERS: Ranges = ((25, 29),)
FROGS: Ranges = ((30, 32),)
AMPHIBIANS: Ranges = (*SALAMANDERS, *FROGS)
TURTLES: Ranges = ((33, 37),)
LIZARDS: Ranges = ((38, 48),)
SNAKES: Ranges = ((52, 68),)
REPTILES: Ranges = ((33, 68),)
SPIDERS: Ranges = ((72, 77),)
ARACHNIDS: Ranges = ((70, 78),)
CRABS: Ranges = ((118, 121),)
CRUSTACEANS: Ranges = ((118, 126),)
MOLLUSCS: Ranges = ((112, 117),)
MAMMALS: Ranges = ((101, 106), (147, 299), (330, 388))
FRUIT: Ranges = ((948, 957),)
VEGETABLES: Ranges = ((936, 946),)
FUNGI: Ranges = ((991, 997),)
FLOWERS: Ranges = ((985, 986),)
BOATS: Ranges = (472, 484, 554, 576, 625, 780, 814, 871, 914)
SHIPS: Ranges = (403, 510, 628, 724)
TRUCKS: Ranges = (555, 569, 675, 717, 864, 867)
BUSES: Ranges = (654, 779, 874)
CARS: Ranges = (436, 468, 511, 609, 627, 656, 661, 751, 817)
AIRCRAFT: Ranges = (404, 405, 417, 895)
TRAINS: Ranges = (466, 547, 565, 705, 820, 829)
CYCLES: Ranges = (444, 665, 670, 671, 870, 880)
SLEDS: Ranges = (450, 537)
CARTS: Ranges = (428, 603, 612, 690)
OTHER_VEHICLES: Ranges = (408, 407, 561, 573, 575, 586, 734, 757, 802, 803, 812, 833, 847, 866)
TOOLS: Ranges = (477, 491, 499, 512, 587, 596, 714, 726, 731, 740, 784, 792)
BUILDINGS: Ranges = (415, 424, 425, 449, 454, 467, 483, 497, 498, 509, 580, 582, 624, 663, 668, 698, 727, 743, 762,
                     788, 832, 860, 865)  # fmt: skip
INSTRUMENTS: Ranges = (401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683, 684,
                       687, 699, 776, 822, 875, 881, 889)  # fmt: skip
FURNITURE: Ranges = (423, 431, 453, 493, 495, 516, 520, 526, 532, 553, 559, 564, 703, 736, 765, 831, 857, 894)
CLOTHING: Ranges = (399, 400, 411, 433, 439, 443, 445, 451, 452, 457, 459, 474, 496, 501, 514, 515, 529, 568, 578, 601,
                    608, 610, 614, 617, 638, 639, 652, 655, 658, 689, 697, 735, 775, 793, 806, 808, 824, 834, 841, 842,
                    869, 887, 906)  # fmt: skip
DISHES: Ranges = ((924, 935), 959, (962, 965))

RANGES: Mapping[str, Ranges] = {
    "animal": ((0, 397),),
    "dog": DOGS,
    "cat": CATS,
    "primate": PRIMATES,
    "ape": APES,
    "monkey": MONKEYS,
    "beetle": BEETLES,
    "butterfly": BUTTERFLIES,
    "insect": INSECTS,
    "fish": FISH,
    "shark": SHARKS,
    "bird": BIRDS,
    "owl": OWLS,
    "salamander": SALAMANDERS,
    "frog": FROGS,
    "amphibian": AMPHIBIANS,
    "turtle": TURTLES,
    "lizard": LIZARDS,
    "snake": SNAKES,
    "reptile": REPTILES,
    "spider": SPIDERS,
    "arachnid": ARACHNIDS,
    "crab": CRABS,
    "crustacean": CRUSTACEANS,
    "mollusc": MOLLUSCS,
    "mollusk": MOLLUSCS,
    "mammal": MAMMALS,
    "fruit": FRUIT,
    "vegetable": VEGETABLES,
    "fungus": FUNGI,
    "fungi": FUNGI,
    "flower": FLOWERS,
    "boat": BOATS,
    "ship": SHIPS,
    "truck": TRUCKS,
    "bus": BUSES,
    "car": CARS,
    "aircraft": AIRCRAFT,
    "train": TRAINS,
    "vehicle": (*BOATS, *SHIPS, *TRUCKS, *BUSES, *CARS, *AIRCRAFT, *TRAINS, *CYCLES, *SLEDS, *CARTS, *OTHER_VEHICLES),
    "tool": TOOLS,
    "building": BUILDINGS,
    "musical instrument": INSTRUMENTS,
    "furniture": FURNITURE,
    "clothing": CLOTHING,
    "clothes": CLOTHING,
    "food": (*DISHES, *FRUIT, *VEGETABLES),
}


def numbers(word: str) -> tuple[int, ...]:
    """The classes that are surely kinds of what a word of the table says."""
    found: set[int] = set()
    for part in RANGES[word]:
        first, last = (part, part) if isinstance(part, int) else part
        found.update(range(first, last + 1))
    return tuple(sorted(found))
