/// What nearly every file of the library includes of the standard library, parsed once for each of its parts:
/// that is most of the time that compiling one takes. A file still names what it uses itself: the preset
/// `debug` is built without this.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
