#include "shim/real.h"

#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <type_traits>

#include "io/syscalls.h"

namespace ustack::shim::real {
namespace {

constexpr long kNone = -1;
constexpr long kItself = -2;

/// What stands for an entry until it is found: finds all, then calls it; or the bare system call when the
/// search itself got us here.
#define USTACK_EARLY(result, name, parameters, arguments, number) result early_##name parameters;
USTACK_SYMBOLS(USTACK_EARLY)
#undef USTACK_EARLY

std::atomic<bool> searching{false};

template <typename T>
long word(T value) {
  if constexpr (std::is_pointer_v<T>)
    return reinterpret_cast<long>(value);
  else
    return static_cast<long>(value);
}

template <typename Result, typename... Arguments>
Result bare(long number, Arguments... arguments) {
  long result = -ENOSYS;
  if constexpr (sizeof...(Arguments) <= 6) {
    if (number != kNone) result = io::sys::call(number, word(arguments)...);
  } else {
    if (number == kItself) result = io::sys::call(word(arguments)...);
  }
  if (io::sys::failed(result)) {
    errno = static_cast<int>(-result);
    result = -1;
  }
  if constexpr (std::is_pointer_v<Result>)
    return reinterpret_cast<Result>(result);
  else if constexpr (!std::is_void_v<Result>)
    return static_cast<Result>(result);
}

}  // namespace

#define USTACK_REAL(result, name, parameters, arguments, number) result(*name) parameters = early_##name;
USTACK_SYMBOLS(USTACK_REAL)
#undef USTACK_REAL

namespace {

// bare<int>(number, fd, to): the comma between number and arguments is there only if there are arguments.
#define USTACK_UNPACK(...) __VA_OPT__(, ) __VA_ARGS__
#define USTACK_EARLY(result, name, parameters, arguments, number) \
  result early_##name parameters {                                \
    resolve();                                                    \
    if (real::name != early_##name) return real::name arguments;  \
    return bare<result>(number USTACK_UNPACK arguments);          \
  }
USTACK_SYMBOLS(USTACK_EARLY)
#undef USTACK_EARLY

template <typename F>
void find(F*& entry, const char* name) {
  // An entry that this libc lacks keeps its stand-in: the system call, or ENOSYS.
  if (void* found = dlsym(RTLD_NEXT, name)) entry = reinterpret_cast<F*>(found);
}

}  // namespace

void resolve() {
  // Whoever comes here while the search runs (an allocator under dlsym, another thread) uses system calls.
  if (searching.exchange(true, std::memory_order_acq_rel)) return;
#define USTACK_FIND(result, name, parameters, arguments, number) find(name, #name);
  USTACK_SYMBOLS(USTACK_FIND)
#undef USTACK_FIND
}

}  // namespace ustack::shim::real
