//! The words of pairing codes: 1024 of them, so that each carries ten bits.
//!
//! Chosen to be said over a telephone: four to seven letters, lower case, no two that differ in one
//! letter, none that begins another, few that sound alike. Their places are part of the meaning of
//! no code, so a word may be replaced; but both ends of a pairing must know it.

/// How many words there are: a power of two, so that random bits choose evenly.
pub(super) const WORD_COUNT: usize = 1024;

/// The words, ascending.
#[rustfmt::skip]
pub(super) const WORDS: [&str; WORD_COUNT] = [
    "abacus", "absent", "absorb", "academy", "accent", "achieve", "acorn", "acrobat", "across",
    "action", "adapt", "adjust", "admiral", "admire", "adult", "aerial", "affair", "agent",
    "airport", "alarm", "alchemy", "algebra", "almanac", "almond", "alone", "always", "amber",
    "amigo", "ample", "amused", "analyst", "anchor", "answer", "antenna", "anthem", "anvil",
    "anxious", "appear", "approve", "apricot", "april", "apron", "archive", "arena", "argue",
    "armor", "arrow", "artist", "aspen", "atom", "attic", "august", "author", "autumn", "average",
    "avocado", "avoid", "awkward", "axle", "azure", "bacon", "bagel", "balloon", "balsam", "bamboo",
    "banner", "barley", "barn", "basil", "bassoon", "bathtub", "battery", "beach", "beaver",
    "bedrock", "beetle", "before", "begin", "believe", "belong", "beluga", "benefit", "beyond",
    "billion", "bingo", "biology", "birch", "biscuit", "bison", "blender", "blossom", "blouse",
    "blue", "boat", "bonus", "botany", "bounce", "bouquet", "bowling", "branch", "breathe",
    "breeze", "brick", "bright", "broker", "bronze", "brother", "bubble", "bucket", "buddy",
    "buffalo", "bugle", "builder", "bulb", "bundle", "bunker", "burden", "busy", "butcher",
    "butler", "button", "buyer", "buzzard", "cabbage", "cabin", "cable", "cadence", "cafe",
    "calypso", "camel", "camera", "campus", "candle", "canoe", "canvas", "canyon", "capable",
    "captain", "caramel", "cargo", "carpet", "carve", "castle", "casual", "caution", "cedar",
    "celery", "cello", "chamber", "channel", "chariot", "chase", "cheese", "cherry", "chicken",
    "chisel", "choice", "chowder", "cider", "cinema", "cipher", "circle", "circus", "citrus",
    "city", "civil", "clarity", "clean", "clerk", "cliff", "clinic", "close", "clump", "cluster",
    "coach", "cobalt", "cobbler", "coffee", "collar", "combine", "comet", "comic", "common",
    "company", "compass", "concert", "conduct", "confirm", "console", "copper", "coral", "cosmos",
    "cottage", "cotton", "cougar", "country", "coupon", "courage", "cousin", "cover", "cowboy",
    "coyote", "crack", "cradle", "crawl", "crayon", "cricket", "crisp", "critic", "cruiser",
    "crumble", "culture", "cupcake", "curious", "cushion", "custard", "cycle", "cypress", "daisy",
    "dancer", "daring", "dash", "debate", "decimal", "decline", "deer", "default", "delight",
    "deliver", "delta", "denial", "dentist", "depart", "depend", "deputy", "derive", "dervish",
    "design", "desk", "detail", "detect", "detour", "develop", "device", "diagram", "dialect",
    "diamond", "diary", "diesel", "digit", "dignity", "dinner", "diploma", "direct", "dishes",
    "display", "doctor", "dodge", "dolphin", "domain", "donate", "donkey", "donut", "doorway",
    "dose", "double", "dough", "dozen", "drawer", "dream", "dresser", "driver", "drum", "duchess",
    "dune", "duplex", "eager", "early", "earth", "easel", "easily", "east", "echo", "edge",
    "editor", "effort", "eight", "elbow", "elegant", "eleven", "elite", "elope", "email", "embrace",
    "emerald", "emotion", "emperor", "empty", "enable", "enamel", "endless", "energy", "engage",
    "engine", "enigma", "enjoy", "enlist", "enter", "entire", "epic", "equator", "equip", "erase",
    "errand", "essay", "estuary", "evening", "evident", "exact", "excess", "excite", "execute",
    "exhale", "exile", "exist", "explain", "express", "extend", "eyebrow", "fade", "fairy", "faith",
    "falcon", "family", "fantasy", "farmer", "father", "fatigue", "faucet", "fence", "fennel",
    "ferry", "fiber", "fiddle", "field", "figure", "filter", "finale", "finch", "fjord", "flicker",
    "float", "fluid", "foam", "focus", "foil", "forest", "forever", "formula", "fortify", "fortune",
    "forum", "fragile", "freedom", "freight", "friday", "fringe", "frog", "frozen", "fruit", "fuel",
    "fulfill", "gadget", "gallery", "gallon", "gamma", "garage", "garment", "gazebo", "gecko",
    "general", "genius", "genre", "geology", "geyser", "gibbon", "gift", "giraffe", "glacier",
    "glad", "glass", "glider", "global", "glove", "glow", "goblet", "goggles", "gold", "goose",
    "gorilla", "gourmet", "govern", "gown", "grab", "grain", "granite", "granola", "grape",
    "gravity", "green", "grid", "griffin", "grotto", "group", "gryphon", "guava", "guess", "guide",
    "gull", "gust", "gymnast", "haiku", "half", "halibut", "hallway", "hamlet", "hamster", "hand",
    "harmony", "harness", "harp", "hatch", "hazel", "health", "heavy", "helium", "helmet",
    "hemlock", "herald", "herbal", "hermit", "hexagon", "hexapod", "hickory", "hippo", "history",
    "hobby", "hockey", "holiday", "honey", "hoodie", "horizon", "horse", "hostel", "huge", "human",
    "humble", "humor", "hundred", "husky", "hydrant", "hyphen", "ibex", "icebox", "icicle", "idea",
    "igloo", "image", "imagine", "impact", "improve", "income", "index", "inform", "inherit",
    "inkblot", "inlet", "input", "insect", "inside", "install", "intact", "invent", "involve",
    "island", "isotope", "issue", "ivory", "jackpot", "jasmine", "jewel", "jigsaw", "jingle",
    "joker", "journal", "jubilee", "juggler", "juice", "jukebox", "jumbo", "junior", "jupiter",
    "jury", "kazoo", "kebab", "ketchup", "kimono", "kindle", "kingdom", "kitchen", "knock",
    "knuckle", "krill", "kumquat", "label", "lagoon", "lambda", "lantern", "laptop", "larch",
    "laugh", "laundry", "laurel", "lava", "learn", "leave", "lecture", "legend", "lemon", "length",
    "lentil", "level", "liberty", "lily", "linen", "link", "lion", "lizard", "llama", "loaf",
    "locket", "loop", "lotion", "lullaby", "lumber", "luxury", "macaw", "machine", "magic", "magma",
    "major", "mammoth", "manager", "manatee", "mandate", "manual", "many", "margin", "marina",
    "market", "marsh", "mascot", "mask", "maximum", "mean", "media", "medical", "meet", "melody",
    "melon", "member", "mentor", "menu", "mermaid", "mesh", "meteor", "method", "minnow", "mint",
    "minute", "miracle", "mirage", "mirror", "mission", "mistral", "mobile", "modern", "mohair",
    "molar", "moment", "monarch", "monitor", "mosaic", "mother", "movie", "mudflat", "muffin",
    "mule", "museum", "myrtle", "mystery", "napkin", "natural", "nature", "nebula", "nectar",
    "neither", "neon", "nephew", "neptune", "nerve", "network", "neutral", "neutron", "newborn",
    "nickel", "nimble", "noise", "normal", "north", "notice", "nozzle", "nugget", "nutmeg",
    "oatmeal", "obelisk", "object", "oblige", "oboe", "obvious", "occur", "octave", "october",
    "octopus", "offer", "office", "olive", "olympus", "omega", "onion", "opal", "opera", "opinion",
    "oppose", "optical", "option", "orchid", "oregano", "organ", "osprey", "ostrich", "outdoor",
    "output", "owner", "oxbow", "oxide", "oxygen", "paddle", "padlock", "page", "pagoda", "painter",
    "palace", "palette", "pancake", "panda", "panel", "panther", "paper", "parade", "parasol",
    "parka", "parrot", "parsley", "partner", "passage", "pasta", "pastry", "path", "patriot",
    "pattern", "peanut", "peasant", "pecan", "pegasus", "pepper", "perfume", "pergola", "person",
    "peruse", "phantom", "phrase", "piccolo", "pickle", "picnic", "picture", "pigeon", "pigment",
    "pilgrim", "pillow", "pinball", "pioneer", "piston", "pitch", "pixel", "planet", "plastic",
    "playful", "please", "pledge", "plenty", "plug", "pluto", "plywood", "podium", "poem", "poetry",
    "point", "polka", "polygon", "pool", "popular", "porch", "portal", "pottery", "precise",
    "prefer", "premium", "pretty", "primary", "private", "promote", "prosper", "provide", "prune",
    "pulley", "puma", "pumpkin", "puppet", "purple", "purpose", "puzzle", "pyramid", "quail",
    "quality", "quantum", "quarry", "quartz", "queen", "quest", "quiver", "quota", "rabbit",
    "radar", "radish", "raft", "railway", "raisin", "ramble", "rampart", "random", "ranger",
    "rapid", "ratchet", "razor", "reading", "reason", "recital", "referee", "refine", "reflex",
    "regular", "relax", "relish", "render", "renew", "rental", "repeat", "retina", "return",
    "reunion", "reward", "rhino", "ripple", "roller", "romance", "rooster", "rotate", "ruby",
    "ruler", "rural", "russet", "safety", "saffron", "sahara", "sailor", "salmon", "sandal",
    "satin", "satire", "saturn", "savanna", "scallop", "scenic", "scholar", "science", "script",
    "sculpt", "seagull", "seaweed", "seed", "select", "seminar", "senior", "sequel", "sequoia",
    "session", "seven", "sextant", "shadow", "sheep", "shelter", "shiny", "shovel", "shuttle",
    "signal", "silicon", "similar", "simple", "siren", "sitcom", "sixty", "sketch", "skillet",
    "skipper", "slalom", "slogan", "smart", "smoke", "smooth", "snack", "snorkel", "snow", "soap",
    "social", "sonar", "sonnet", "soprano", "sorcery", "spaniel", "sparrow", "spartan", "spatula",
    "speech", "spiral", "sponge", "spoon", "spring", "sprout", "squad", "square", "stable",
    "stadium", "stamp", "station", "stellar", "stencil", "stereo", "stork", "studio", "sturdy",
    "submit", "subway", "success", "sugar", "sunbeam", "sunday", "sundial", "sunset", "superb",
    "support", "surface", "surgeon", "survey", "sweater", "swift", "syrup", "system", "tabby",
    "taco", "tambour", "tangent", "tapioca", "target", "tartan", "taxi", "teacher", "temple",
    "tenant", "terrace", "terrier", "textile", "theater", "theory", "thimble", "thirty", "thistle",
    "thorn", "thrill", "tidal", "tiger", "timber", "tiptoe", "titan", "token", "tonic", "topaz",
    "total", "tourist", "towel", "tractor", "trade", "trail", "trapeze", "travel", "tremble",
    "trident", "trigger", "trio", "triumph", "trophy", "tropics", "trout", "truffle", "tsunami",
    "tuba", "tugboat", "tundra", "turkey", "turnip", "turtle", "tuxedo", "tweed", "twenty", "twig",
    "typhoon", "typical", "ukulele", "ultra", "uncle", "under", "uniform", "until", "upgrade",
    "upland", "uranium", "urban", "usage", "useful", "usher", "usual", "utensil", "utopia",
    "vacant", "vacuum", "valiant", "vanilla", "vapor", "variety", "vector", "vendor", "venture",
    "venus", "veranda", "verdict", "vessel", "veteran", "viaduct", "video", "viking", "village",
    "vine", "vintage", "vinyl", "violet", "vision", "visitor", "vista", "vitamin", "voice",
    "volcano", "voltage", "voyage", "walnut", "walrus", "warbler", "wasabi", "water", "wedding",
    "wheat", "whimsy", "widget", "window", "wisdom", "wolf", "wonder", "wrench", "wrist", "writer",
    "xenon", "yellow", "yeti", "yodel", "yoga", "yogurt", "zealous", "zebra", "zephyr", "zero",
    "zesty", "zigzag", "zinnia", "zipper", "zoology",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_ascending_and_short() {
        assert!(WORDS.windows(2).all(|pair| pair[0] < pair[1]));
        for word in WORDS {
            assert!((4..=7).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn no_word_begins_another() {
        // In ascending order, what a word begins comes right after it.
        for pair in WORDS.windows(2) {
            assert!(!pair[1].starts_with(pair[0]), "{} begins {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn no_two_words_differ_in_one_letter_only() {
        for (at, a) in WORDS.iter().enumerate() {
            for b in &WORDS[at + 1..] {
                let differ = a.bytes().zip(b.bytes()).filter(|(x, y)| x != y).count();
                assert!(a.len() != b.len() || differ > 1, "{a} and {b}");
            }
        }
    }
}
