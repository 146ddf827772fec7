// An operator's attributes as they cross from Python: a small typed dictionary.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "mb/error.h"

namespace mb {

using AttrValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>,
                               std::vector<double>>;

class Attrs {
 public:
  void set(std::string name, AttrValue value) { values_[std::move(name)] = std::move(value); }
  bool has(const std::string& name) const { return values_.contains(name); }

  bool flag(const std::string& name) const { return get<bool>(name, "a bool"); }
  std::int64_t integer(const std::string& name) const {
    return get<std::int64_t>(name, "an integer");
  }
  double real(const std::string& name) const {
    const AttrValue& value = at(name);
    if (const auto* whole = std::get_if<std::int64_t>(&value)) return double(*whole);
    return get<double>(name, "a number");
  }
  const std::string& text(const std::string& name) const {
    return get<std::string>(name, "a string");
  }
  const std::vector<std::int64_t>& integers(const std::string& name) const {
    return get<std::vector<std::int64_t>>(name, "a list of integers");
  }
  std::vector<double> reals(const std::string& name) const {
    const AttrValue& value = at(name);
    if (const auto* whole = std::get_if<std::vector<std::int64_t>>(&value)) {
      return {whole->begin(), whole->end()};
    }
    return get<std::vector<double>>(name, "a list of numbers");
  }

 private:
  const AttrValue& at(const std::string& name) const {
    auto found = values_.find(name);
    if (found == values_.end()) fail("attribute ", name, " is missing");
    return found->second;
  }
  template <typename T>
  const T& get(const std::string& name, const char* kind) const {
    const T* value = std::get_if<T>(&at(name));
    if (value == nullptr) fail("attribute ", name, " is not ", kind);
    return *value;
  }

  std::map<std::string, AttrValue> values_;
};

}  // namespace mb
