// In place of libstdc++'s: the library is compiled without exceptions, so what would be thrown ends the
// process in any case. libstdc++'s own would bring the unwinder, a demangler and an emergency pool along,
// which takes 72 KB from the allocator of every program when the library is loaded. Part of libustack.so
// only: tests keep what the sanitizers put there.
#include <cstdlib>
#include <new>
#include <string_view>

#include "io/syscalls.h"

namespace {

[[noreturn]] void give_up(const char* why) {
  for (std::string_view part : {std::string_view("ustack: "), std::string_view(why), std::string_view("\n")})
    ustack::io::sys::write(STDERR_FILENO, part.data(), part.size());
  std::abort();
}

}  // namespace

void* operator new(std::size_t bytes) {
  void* memory = std::malloc(bytes != 0 ? bytes : 1);
  if (memory == nullptr) give_up("out of memory");
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// Every abstract class's table has it; from here it is no symbol to be looked up.
extern "C" [[noreturn, gnu::visibility("hidden")]] void __cxa_pure_virtual() {
  give_up("a pure virtual call");
}

namespace std {

void __throw_bad_alloc() { give_up("out of memory"); }
void __throw_bad_array_new_length() { give_up("array too long"); }
void __throw_length_error(const char* what) { give_up(what); }
void __throw_logic_error(const char* what) { give_up(what); }
void __throw_out_of_range_fmt(const char* what, ...) { give_up(what); }

}  // namespace std
