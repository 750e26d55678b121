#include "shim/real.h"

#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
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

/// Texts one after the other, in the entries' order, beside the code that reads them (library.ld).
struct Names {
#define USTACK_NAME(result, name, parameters, arguments, number) char name[sizeof #name];
  USTACK_SYMBOLS(USTACK_NAME)
#undef USTACK_NAME
};
#define USTACK_NAME(result, name, parameters, arguments, number) #name,
[[gnu::section(".rodata.inert")]] constexpr Names kNames{USTACK_SYMBOLS(USTACK_NAME)};
#undef USTACK_NAME

constexpr size_t kEntries = sizeof(detail::Entries) / sizeof(void*);
std::atomic<bool> is_found[kEntries];

/// False: this libc lacks the entry, or this thread is looking already; the stand-in stays.
[[gnu::noinline]] bool find(size_t index, const char* name) {
  if (searching) return false;
  int error = errno;
  searching = true;
  void* address = dlsym(RTLD_NEXT, name);
  searching = false;
  errno = error;
  if (address == nullptr) return false;
  // Threads that look at once find the same.
  __atomic_store_n(reinterpret_cast<void**>(&detail::entries) + index, address, __ATOMIC_RELAXED);
  is_found[index].store(true, std::memory_order_relaxed);
  return true;
}

}  // namespace

#define USTACK_REAL(result, name, parameters, arguments, number) early_##name,
constinit detail::Entries detail::entries{USTACK_SYMBOLS(USTACK_REAL)};
#undef USTACK_REAL

namespace {

// bare<int>(number, fd, to): the comma between number and arguments is there only if there are arguments.
#define USTACK_UNPACK(...) __VA_OPT__(, ) __VA_ARGS__
#define USTACK_EARLY(result, name, parameters, arguments, number)                                        \
  result early_##name parameters {                                                                       \
    if (find(offsetof(detail::Entries, name) / sizeof(void*), kNames.name)) return real::name arguments; \
    return bare<result>(number USTACK_UNPACK arguments);                                                 \
  }
USTACK_SYMBOLS(USTACK_EARLY)
#undef USTACK_EARLY

}  // namespace

Dlopen find_dlopen() {
  constexpr size_t kIndex = offsetof(detail::Entries, dlopen) / sizeof(void*);
  if (!is_found[kIndex].load(std::memory_order_relaxed)) find(kIndex, "dlopen");
  return real::dlopen;
}

void resolve() {
  if (all_found.exchange(true, std::memory_order_acq_rel)) return;
  auto* name = reinterpret_cast<const char*>(&kNames);
  for (size_t index = 0; index < kEntries; ++index, name += std::strlen(name) + 1)
    if (!is_found[index].load(std::memory_order_relaxed)) find(index, name);
}

}  // namespace ustack::shim::real
