// Libraries of kernels that are built apart from the engine and opened while it runs.
//
// A library exports two names: a stamp, which is compared before anything else is touched, and an
// entry that takes the engine's functions and gives the library's kernels. No symbol is resolved
// between the two. Python loads the engine with RTLD_LOCAL and its symbols are hidden; whether a
// library could see them all the same would depend on Python, linker and order of loading.
//
// Classes do cross (Call, Attrs, Launch). So both sides must have seen the same headers and the
// same C++ library: that is what the stamp says; which of GCC and Clang it was does not matter.
// Exceptions cross as std::exception, a class of the C++ library that the process has once:
// mb::Error of a library and mb::Error of the engine are two classes.
#pragma once

#include <set>
#include <string>
#include <version>  // macros of the C++ library

#include "mb/kernel.h"

#define MB_TEXT_INNER(macro) #macro
#define MB_TEXT(macro) MB_TEXT_INNER(macro)
#if defined(_LIBCPP_VERSION)
#define MB_CXX_LIBRARY "libc++ with ABI " MB_TEXT(_LIBCPP_ABI_VERSION)
#elif defined(_GLIBCXX_DEBUG)  // containers of another size
#define MB_CXX_LIBRARY "libstdc++ with _GLIBCXX_DEBUG"
#else
#define MB_CXX_LIBRARY "libstdc++ with _GLIBCXX_USE_CXX11_ABI=" MB_TEXT(_GLIBCXX_USE_CXX11_ABI)
#endif
// MB_HEADERS is a digest of the folder mb/, which the build gives to the few files that need it.
#define MB_STAMP "headers " MB_HEADERS ", " MB_CXX_LIBRARY

namespace mb {

// What kernels need of the running engine; the rest of the headers is inline.
struct EngineFunctions {
  int (*num_threads)();
};

struct KernelRange {
  const Registration* const* begin;
  const Registration* const* end;
};

inline constexpr const char* kStampSymbol = "mb_library_stamp";  // const char[]
inline constexpr const char* kEntrySymbol = "mb_library_entry";
using LibraryEntry = KernelRange (*)(const EngineFunctions&);

// The library was built for another engine.
class WrongStamp : public Error {
 public:
  using Error::Error;
};

// Opens a shared object and adds its kernels, for any device, to the table; gives their names.
// Opening it again does nothing. It stays open: loaded plans call into it.
std::set<std::string> open_library(const std::string& path);

}  // namespace mb
