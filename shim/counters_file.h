// USTACK_COUNTERS: the file that gets the counters when the host has nothing more to do.
#pragma once

#include <optional>
#include <string>

#include "io/descriptor.h"
#include "io/open_error.h"
#include "stack/counters.h"

namespace ustack::shim {

/// Makes or empties the file. Kept open, since the keeper that writes last may see another directory.
std::optional<io::OpenError> open_counters_file(const std::string& path, io::Descriptor* file);
/// Replaces the file's content: one "name value" line for each counter, named as nstat(8) does. Free of
/// malloc.
void write_counters(const io::Descriptor& file, const Counters& counters);

}  // namespace ustack::shim
