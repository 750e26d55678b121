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

/// What stands for an entry until it is called first: finds it, then calls it; or the bare system call when
/// the search itself got us here.
#define USTACK_EARLY(result, name, parameters, arguments, number) result early_##name parameters;
USTACK_SYMBOLS(USTACK_EARLY)
#undef USTACK_EARLY

/// This thread is in the dynamic linker, which may allocate, and a preloaded allocator may come back to us.
constinit thread_local bool searching = false;
std::atomic<bool> all_found{false};

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

/// Beside the code that reads them (library.ld).
#define USTACK_NAME(result, name, parameters, arguments, number) \
  [[gnu::section(".rodata.inert")]] constexpr char name_of_##name[] = #name;
USTACK_SYMBOLS(USTACK_NAME)
#undef USTACK_NAME

/// Null: this libc lacks the entry, or this thread is looking already.
[[gnu::noinline]] void* find_address(const char* name) {
  if (searching) return nullptr;
  int error = errno;
  searching = true;
  void* found = dlsym(RTLD_NEXT, name);
  searching = false;
  errno = error;
  return found;
}

/// False: the stand-in stays.
template <typename F>
bool find(F*& entry, const char* name) {
  void* found = find_address(name);
  // Threads that look at once find the same.
  if (found != nullptr) __atomic_store_n(&entry, reinterpret_cast<F*>(found), __ATOMIC_RELAXED);
  return found != nullptr;
}

}  // namespace

#define USTACK_REAL(result, name, parameters, arguments, number) result(*name) parameters = early_##name;
USTACK_SYMBOLS(USTACK_REAL)
#undef USTACK_REAL

namespace {

// bare<int>(number, fd, to): the comma between number and arguments is there only if there are arguments.
#define USTACK_UNPACK(...) __VA_OPT__(, ) __VA_ARGS__
#define USTACK_EARLY(result, name, parameters, arguments, number)      \
  result early_##name parameters {                                     \
    if (find(real::name, name_of_##name)) return real::name arguments; \
    return bare<result>(number USTACK_UNPACK arguments);               \
  }
USTACK_SYMBOLS(USTACK_EARLY)
#undef USTACK_EARLY

}  // namespace

void resolve() {
  if (all_found.exchange(true, std::memory_order_acq_rel)) return;
#define USTACK_FIND(result, name, parameters, arguments, number) \
  if (name == early_##name) find(name, name_of_##name);
  USTACK_SYMBOLS(USTACK_FIND)
#undef USTACK_FIND
}

}  // namespace ustack::shim::real
